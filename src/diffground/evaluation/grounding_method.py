"""The grounding module as a method of Protocol I, which can be sent to a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diffground.data.labelled import LabelledSample
from diffground.evaluation.methods import parts_that_fit
from diffground.grounding.prediction import Grounder, likeliest_word
from diffground.vocabulary import Vocabulary


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
        return [
            masks
            for _, found in parts_that_fit(samples, self._predict, setting="generator.batch_size")
            for masks in found
        ]

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
