"""The frozen generator's feature maps for training: computed once and kept in memory, or again for every batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from diffground.diffusion.generator import Features
from diffground.runtime.progress import Progress

MAX_CACHE_BYTES = 4 * 2**30
"""Feature maps of a training set up to this size are kept in memory."""


class FeatureSource(Protocol):
    """Features of numbered samples."""

    def batch(self, indices: Sequence[int]) -> Features:
        """Features of these samples, on the training device."""


class StreamedFeatures:
    """One UNet pass for every batch."""

    def __init__(self, extract: Callable[[Sequence[int]], Features]) -> None:
        self._extract = extract

    def batch(self, indices: Sequence[int]) -> Features:
        return self._extract(indices)


class CachedFeatures:
    """float16 maps of all samples, in memory; `attention` as in Features, for all samples."""

    def __init__(self, *, maps: dict[int, Tensor], attention: Tensor | None, device: torch.device) -> None:
        self._maps = {size: values.half() for size, values in maps.items()}
        self._attention = None if attention is None else attention.half()
        self._device = device

    def batch(self, indices: Sequence[int]) -> Features:
        chosen = torch.as_tensor(indices)

        def take(values: Tensor) -> Tensor:
            return values[chosen].to(self._device, torch.float32)

        return Features(
            maps={size: take(values) for size, values in self._maps.items()},
            attention=None if self._attention is None else take(self._attention),
        )


def gather_features(
    extract: Callable[[Sequence[int]], Features],
    *,
    num_samples: int,
    batch_size: int,
    device: torch.device,
    max_cache_bytes: int = MAX_CACHE_BYTES,
) -> FeatureSource:
    """Cache the features of all samples if they fit, else stream them.

    Args:
        extract: computes the features of the samples with these indices; every batch with the same number of queries.
        batch_size: samples in one UNet pass while the cache is filled.
    """
    first = extract(range(min(batch_size, num_samples)))
    tensors = [*first.maps.values(), *([] if first.attention is None else [first.attention])]
    bytes_a_sample = 2 * sum(t[0].numel() for t in tensors)
    if num_samples * bytes_a_sample > max_cache_bytes:
        return StreamedFeatures(extract)

    def empty(like: Tensor) -> Tensor:
        return torch.empty((num_samples, *like.shape[1:]), dtype=torch.float16)

    maps = {size: empty(values) for size, values in first.maps.items()}
    attention = None if first.attention is None else empty(first.attention)
    with Progress(num_samples, description="features") as progress:
        for start in range(0, num_samples, batch_size):
            indices = range(start, min(start + batch_size, num_samples))
            features = first if start == 0 else extract(indices)
            for size, values in features.maps.items():
                maps[size][indices.start : indices.stop] = values
            if attention is not None and features.attention is not None:
                attention[indices.start : indices.stop] = features.attention
            progress.advance(len(indices))
    return CachedFeatures(maps=maps, attention=attention, device=device)
