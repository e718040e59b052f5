"""The methods that Protocol I compares, each as a function from samples to masks that can be sent to a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diffground.baselines.daam import choose_threshold, sample_with_maps
from diffground.data.labelled import LabelledSample
from diffground.detection.detector import Detector
from diffground.detection.oracle import oracle_masks
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.evaluation.protocol1 import foreground_only
from diffground.grounding.prediction import Grounder
from diffground.runtime.progress import Progress
from diffground.runtime.workers import Advance, Workers
from diffground.vocabulary import Vocabulary


@dataclass(frozen=True)
class GroundingMethod:
    """The grounding module, on the stored latents."""

    grounder: Grounder
    vocabulary: Vocabulary
    image_size: int
    mask_threshold: float

    def __call__(self, samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
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


@dataclass(frozen=True)
class DaamMaps:
    """DAAM's heat maps, float32 (B, Q, H, W) in 0..1, of the categories that the samples' prompts name."""

    generator: Generator
    vocabulary: Vocabulary
    sampling: Sampling

    def of(self, samples: Sequence[LabelledSample]) -> np.ndarray:
        """The samples are sampled again."""
        return sample_with_maps(
            self.generator,
            [s.prompt for s in samples],
            [s.seed for s in samples],
            [self.vocabulary.words_in(s.prompt, s.categories) for s in samples],
            self.sampling,
        )[1]

    def __call__(self, samples: Sequence[LabelledSample], advance: Advance) -> np.ndarray:
        """The same, as the work of a worker."""
        maps = self.of(samples)
        advance(len(samples))
        return maps


@dataclass(frozen=True)
class DaamMethod:
    """DAAM: what is at least as much attended as `threshold`."""

    maps: DaamMaps
    threshold: float

    def __call__(self, samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        return [
            {c: heat[q] >= self.threshold for q, c in enumerate(sample.categories)}
            for sample, heat in zip(samples, self.maps.of(samples), strict=True)
        ]


def calibrate_daam(
    maps: DaamMaps, samples: Sequence[LabelledSample], *, batch_size: int, workers: Workers | None = None
) -> DaamMethod:
    """DAAM with the threshold that fits the oracle's masks of these training samples best.

    workers: each computes the maps of a batch; None uses only this process.
    """
    batches = [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    with Progress(len(samples), description="DAAM threshold") as progress:
        heats = (workers or Workers()).map(maps, batches, advance=progress.advance)
        for batch, of_batch in zip(batches, heats, strict=True):
            for sample, heat in zip(batch, of_batch, strict=True):
                masks = sample.masks()
                pairs += [(heat[q], masks[c]) for q, c in enumerate(sample.categories) if c in masks]
    threshold = choose_threshold((heat for heat, _ in pairs), (mask for _, mask in pairs))
    return DaamMethod(maps=maps, threshold=threshold)


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
        for start in range(0, len(samples), self.batch_size):
            batch = samples[start : start + self.batch_size]
            images = np.stack([sample.image()[:, ::-1] for sample in batch])
            for sample, instances in zip(batch, self.detector.detect(images), strict=True):
                found = oracle_masks(
                    instances,
                    sample.categories,
                    detector_names=self.detector_names,
                    score_threshold=self.score_threshold,
                )
                nothing = np.zeros(images.shape[1:3], dtype=bool)
                masks.append({c: found[c].mask[:, ::-1] if c in found else nothing for c in sample.categories})
        return masks
