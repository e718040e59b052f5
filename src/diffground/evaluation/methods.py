"""The methods that Protocol I compares, each as a function from samples to masks that can be sent to a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from diffground.data.labelled import LabelledSample
from diffground.detection.detector import Detector
from diffground.detection.oracle import oracle_masks
from diffground.evaluation.protocol1 import foreground_only
from diffground.grounding.prediction import Grounder, likeliest_word
from diffground.runtime.batches import in_batches
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
    resolve_overlaps: bool = False
    """Whether a pixel belongs to its likeliest category only."""

    def __call__(self, samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        return [masks for _, found in parts_that_fit(samples, self._predict) for masks in found]

    def _predict(self, samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        probs = self.grounder.probs(
            latents=torch.from_numpy(np.stack([s.latent for s in samples])).float(),
            prompts=[s.prompt for s in samples],
            words=[self.vocabulary.words_in(s.prompt, s.categories) for s in samples],
            timestep=samples[0].timestep,
            image_size=self.image_size,
        )
        masks = [
            likeliest_word(p, mask_threshold=self.mask_threshold) if self.resolve_overlaps else p >= self.mask_threshold
            for p in (of_sample.numpy() for of_sample in probs)
        ]
        return [dict(zip(s.categories, of_sample, strict=True)) for s, of_sample in zip(samples, masks, strict=True)]


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


def parts_that_fit(
    samples: Sequence[LabelledSample], compute: Callable[[Sequence[LabelledSample]], Result]
) -> Iterator[tuple[Sequence[LabelledSample], Result]]:
    """A batch of daam.batch_size samples, as in_batches: in parts where it does not fit into memory."""
    return in_batches(samples, compute, batch_size=len(samples), setting="daam.batch_size", lower=_LOWER)
