"""The methods that Protocol I compares, each as a function from samples to masks that can be sent to a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffground.baselines.daam import choose_layers, choose_threshold, heat_maps, sample_with_layer_maps
from diffground.data.labelled import LabelledSample
from diffground.detection.detector import Detector
from diffground.detection.oracle import oracle_masks
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.evaluation.protocol1 import foreground_only
from diffground.grounding.prediction import Grounder
from diffground.runtime.batches import in_batches
from diffground.runtime.progress import Progress
from diffground.runtime.workers import Advance, Workers
from diffground.vocabulary import Vocabulary

Result = TypeVar("Result")

_LOWER = "generator.image_size or runtime.num_workers"


@dataclass(frozen=True)
class GroundingMethod:
    """The grounding module, on the stored latents."""

    grounder: Grounder
    vocabulary: Vocabulary
    image_size: int
    mask_threshold: float

    def __call__(self, samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        return [masks for _, found in _of_daam_batch(samples, self._predict) for masks in found]

    def _predict(self, samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        probs = self.grounder.probs(
            latents=torch.from_numpy(np.stack([s.latent for s in samples])).float(),
            prompts=[s.prompt for s in samples],
            words=[self.vocabulary.words_in(s.prompt, s.categories) for s in samples],
            timestep=samples[0].timestep,
            image_size=self.image_size,
        )
        return [
            dict(zip(s.categories, (p >= self.mask_threshold).numpy(), strict=True))
            for s, p in zip(samples, probs, strict=True)
        ]


@dataclass
class DaamMaps:
    """Attention to the categories that the samples' prompts name, by layer, float32 (B, Q, L, s, s)."""

    generator: Generator
    vocabulary: Vocabulary
    sampling: Sampling
    published: Sequence[int] = ()
    """The layers of the published implementation, known after the first batch."""
    _keys: tuple[str, ...] = ()
    _maps: Tensor | None = None

    def of(self, samples: Sequence[LabelledSample]) -> Tensor:
        """The samples are sampled again; the maps of the last batch are kept, for several methods to read."""
        keys = tuple(sample.key for sample in samples)
        if self._maps is None or keys != self._keys:
            self._maps = _stacked([maps for _, maps in _of_daam_batch(samples, self._sample)])
            self._keys = keys
        return self._maps

    def _sample(self, samples: Sequence[LabelledSample]) -> Tensor:
        _, maps, self.published = sample_with_layer_maps(
            self.generator,
            [s.prompt for s in samples],
            [s.seed for s in samples],
            [self.vocabulary.words_in(s.prompt, s.categories) for s in samples],
            self.sampling,
        )
        return maps

    def __call__(self, samples: Sequence[LabelledSample], advance: Advance) -> tuple[Tensor, Sequence[int]]:
        """The same with the published layers, as the work of a worker."""
        maps = self.of(samples)
        advance(len(samples))
        return maps, self.published


@dataclass(frozen=True)
class DaamSetting:
    layers: tuple[int, ...]
    """Places in cross_attention_layers."""
    threshold: float
    """Score from which a pixel belongs to a category, 0..1."""


@dataclass(frozen=True)
class DaamMethod:
    """DAAM: what is at least as much attended as a threshold."""

    maps: DaamMaps
    settings: Mapping[int, DaamSetting]
    """By the number of categories that the prompt names."""
    image_size: int

    def __call__(self, samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        found = []
        for sample, maps in zip(samples, self.maps.of(samples), strict=True):
            setting = self.settings[len(sample.categories)]
            heat = heat_maps(maps[:, list(setting.layers)], self.image_size).cpu().numpy()
            found.append({c: heat[q] >= setting.threshold for q, c in enumerate(sample.categories)})
        return found


def calibrate_daam(
    maps: DaamMaps,
    samples: Sequence[LabelledSample],
    *,
    image_size: int,
    batch_size: int,
    workers: Workers | None = None,
) -> tuple[DaamMethod, DaamMethod]:
    """DAAM as published, and at its best, both fitted to the oracle's masks of these training samples.

    As published: its layers, one threshold for all. At its best: layers and threshold of their own for prompts of one
    and of two categories. workers: each computes the maps of a batch; None uses only this process.
    """
    batches = [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]
    attention: dict[int, list[Tensor]] = {1: [], 2: []}
    targets: dict[int, list[np.ndarray]] = {1: [], 2: []}
    published: Sequence[int] = ()
    with Progress(len(samples), description="DAAM calibration") as progress:
        read = (workers or Workers()).map(maps, batches, advance=progress.advance)
        for batch, (of_batch, layers) in zip(batches, read, strict=True):
            published = layers
            for sample, of_sample in zip(batch, of_batch, strict=True):
                masks = sample.masks()
                for q, category in enumerate(sample.categories):
                    if category in masks:
                        attention[len(sample.categories)].append(of_sample[q])
                        targets[len(sample.categories)].append(masks[category])

    def fit(layers: Sequence[int], nums: Sequence[int]) -> DaamSetting:
        heats = (heat_maps(a[list(layers)], image_size).cpu().numpy() for num in nums for a in attention[num])
        return DaamSetting(tuple(layers), choose_threshold(heats, (mask for num in nums for mask in targets[num])))

    plain = fit(published, (1, 2))
    best = {}
    for num, there in attention.items():
        if not there:  # such as without training prompts of two categories
            best[num] = plain
            continue
        best[num] = fit(choose_layers(torch.stack(there), np.stack(targets[num])), [num])
    return DaamMethod(maps, {1: plain, 2: plain}, image_size), DaamMethod(maps, best, image_size)


def foreground_method(samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
    """The reference that needs no words: the oracle's foreground for every category."""
    return [foreground_only(sample.masks()) for sample in samples]


@dataclass(frozen=True)
class MirroredDetector:
    """The reference for how exact the oracle's masks are: what the same detector says of the mirrored image, mirrored
    back; nothing where it does not find a category there. Nothing can be expected to agree with its masks much better.
    """

    detector: Detector
    detector_names: Mapping[str, str | None]
    """Category -> the detector's label for it."""
    score_threshold: float
    batch_size: int

    def __call__(self, samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        masks = []
        batches = in_batches(
            samples,
            lambda batch: self.detector.detect(np.stack([sample.image()[:, ::-1] for sample in batch])),
            batch_size=self.batch_size,
            setting="detector.batch_size",
            lower=_LOWER,
        )
        for batch, found_in_batch in batches:
            for sample, instances in zip(batch, found_in_batch, strict=True):
                found = oracle_masks(
                    instances,
                    sample.categories,
                    detector_names=self.detector_names,
                    score_threshold=self.score_threshold,
                )
                nothing = np.zeros(instances.masks.shape[1:], dtype=bool)
                masks.append({c: found[c].mask[:, ::-1] if c in found else nothing for c in sample.categories})
        return masks


def _of_daam_batch(
    samples: Sequence[LabelledSample], compute: Callable[[Sequence[LabelledSample]], Result]
) -> Iterator[tuple[Sequence[LabelledSample], Result]]:
    """in_batches for `samples` that are a batch already, of daam.batch_size."""
    return in_batches(samples, compute, batch_size=len(samples), setting="daam.batch_size", lower=_LOWER)


def _stacked(maps: Sequence[Tensor]) -> Tensor:
    """float (b, Q, L, s, s) of parts of a batch -> (B, Q, L, s, s), zero for words that a part does not have."""
    num_words = max(part.shape[1] for part in maps)
    return torch.cat([F.pad(part, (0, 0, 0, 0, 0, 0, 0, num_words - part.shape[1])) for part in maps])
