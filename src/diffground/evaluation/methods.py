"""The references of Protocol I, each as a function from samples to masks that can be sent to a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from diffground.data.labelled import LabelledSample
from diffground.detection.detector import Detector
from diffground.detection.oracle import oracle_masks
from diffground.evaluation.protocol1 import foreground_only
from diffground.runtime.batches import in_batches

Result = TypeVar("Result")

_LOWER = "generator.image_size or runtime.num_workers"


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
    samples: Sequence[LabelledSample], compute: Callable[[Sequence[LabelledSample]], Result], *, setting: str
) -> Iterator[tuple[Sequence[LabelledSample], Result]]:
    """A batch of `setting` samples, as in_batches: in parts where it does not fit into memory."""
    return in_batches(samples, compute, batch_size=len(samples), setting=setting, lower=_LOWER)
