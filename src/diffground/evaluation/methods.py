"""The methods that Protocol I compares, each as a function from samples to masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from diffground.baselines.daam import choose_threshold, daam_maps
from diffground.diffusion.generator import Generator
from diffground.evaluation.protocol1 import MaskMethod, foreground_only
from diffground.grounding.oracle import LabelledSample
from diffground.grounding.prediction import Grounder


def grounding_method(
    grounder: Grounder, *, phrases: Mapping[str, str], image_size: int, mask_threshold: float
) -> MaskMethod:
    """The grounding module, on the stored latents. `phrases`: category -> its words in a prompt."""

    def predict(samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        probs = grounder.probs(
            latents=torch.from_numpy(np.stack([s.latent for s in samples])).float(),
            prompts=[s.prompt for s in samples],
            words=[[phrases[c] for c in s.categories] for s in samples],
            timestep=samples[0].timestep,
            image_size=image_size,
        )
        return [
            dict(zip(s.categories, (p >= mask_threshold).numpy(), strict=True))
            for s, p in zip(samples, probs, strict=True)
        ]

    return predict


def daam_method(
    generator: Generator,
    *,
    calibration: Sequence[LabelledSample],
    phrases: Mapping[str, str],
    num_steps: int,
    guidance_scale: float,
    batch_size: int,
) -> tuple[MaskMethod, float]:
    """DAAM, and its threshold: the one that fits the oracle's masks of the training samples `calibration` best."""

    def maps(samples: Sequence[LabelledSample]) -> np.ndarray:
        return daam_maps(
            generator, [s.prompt for s in samples], [s.seed for s in samples],
            [[phrases[c] for c in s.categories] for s in samples],
            num_steps=num_steps, guidance_scale=guidance_scale,
        )  # fmt: skip

    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(calibration), batch_size):
        batch = calibration[start : start + batch_size]
        for sample, heat in zip(batch, maps(batch), strict=True):
            masks = sample.masks()
            pairs += [(heat[q], masks[c]) for q, c in enumerate(sample.categories) if c in masks]
    threshold = choose_threshold((heat for heat, _ in pairs), (mask for _, mask in pairs))

    def predict(samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        return [
            {c: heat[q] >= threshold for q, c in enumerate(sample.categories)}
            for sample, heat in zip(samples, maps(samples), strict=True)
        ]

    return predict, threshold


def foreground_method(samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
    """The reference that needs no words: the oracle's foreground for every category."""
    return [foreground_only(sample.masks()) for sample in samples]
