"""The frozen generator's feature maps for training: computed once and kept in memory, or again for every batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor

from diffground.diffusion.generator import Features
from diffground.runtime.batches import in_batches
from diffground.runtime.progress import Progress

MAX_CACHE_BYTES = 4 * 2**30
"""Feature maps of a training set up to this size are kept in memory."""


class FeatureSource(Protocol):
    """Features of numbered samples."""

    def batch(self, indices: Sequence[int]) -> Features:
        """Features of these samples, on the training device."""


class StreamedFeatures:
    """One UNet pass for every batch, or several for one that does not fit into memory."""

    def __init__(self, extract: Callable[[Sequence[int]], Features]) -> None:
        self._extract = extract

    def batch(self, indices: Sequence[int]) -> Features:
        passes = in_batches(
            indices,
            self._extract,
            batch_size=len(indices),
            setting="grounding.batch_size",
            lower="generator.image_size",
        )
        return _joined([features for _, features in passes])


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
    Raises: InfrastructureError and UserError as in_batches does.
    """
    batches = in_batches(
        range(num_samples),
        extract,
        batch_size=batch_size,
        setting="generator.batch_size",
        lower="generator.image_size",
    )
    first_indices, first = next(batches)
    tensors = [*first.maps.values(), *([] if first.attention is None else [first.attention])]
    bytes_a_sample = 2 * sum(t[0].numel() for t in tensors)
    if num_samples * bytes_a_sample > max_cache_bytes:
        return StreamedFeatures(extract)

    def empty(like: Tensor) -> Tensor:
        return torch.empty((num_samples, *like.shape[1:]), dtype=torch.float16)

    maps = {size: empty(values) for size, values in first.maps.items()}
    attention = None if first.attention is None else empty(first.attention)
    with Progress(num_samples, description="features") as progress:
        done = 0
        for indices, features in chain([(first_indices, first)], batches):
            for size, values in features.maps.items():
                maps[size][done : done + len(indices)] = values
            if attention is not None and features.attention is not None:
                attention[done : done + len(indices)] = features.attention
            done += len(indices)
            progress.advance(len(indices))
    return CachedFeatures(maps=maps, attention=attention, device=device)


def _joined(parts: Sequence[Features]) -> Features:
    """Features of consecutive parts of a batch, which have the same number of queries."""
    if len(parts) == 1:
        return parts[0]
    attention = [part.attention for part in parts if part.attention is not None]
    return Features(
        maps={size: torch.cat([part.maps[size] for part in parts]) for size in parts[0].maps},
        attention=torch.cat(attention) if attention else None,
    )
