"""DAAM: heat maps of words from cross-attention (Tang et al., "What the DAAM", ACL 2023), a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch.nn.functional as F

from diffground.diffusion.cross_attention import WordMaps
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError

_NUM_BINS = 100


def sample_with_maps(
    generator: Generator,
    prompts: Sequence[str],
    seeds: Sequence[int],
    phrases: Sequence[Sequence[str]],
    sampling: Sampling,
) -> tuple[np.ndarray, np.ndarray]:
    """Sample the prompts: images uint8 (B, H, W, 3), and heat maps of their phrases, float32 (B, Q, H, W) in 0..1.

    The attention probabilities of the conditional half, mean over the phrase's tokens, heads and steps, are resized
    bicubically to the largest layer's size, averaged over the layers, resized to the image and normalised: the least
    attended pixel of a map is 0, the most attended 1. A map is all zeros for a phrase that is not in the prompt, and
    where a sample has fewer phrases than another.
    """
    recorder = WordMaps(generator.token_weights(prompts, phrases))
    images = generator.sample(prompts, seeds, sampling, recorder=recorder).images
    maps = recorder.resized(recorder.finest_size, mode="bicubic").clamp(min=0).mean(dim=2)  # (B, Q, s, s)
    size = (generator.image_size, generator.image_size)
    maps = F.interpolate(maps, size=size, mode="bicubic", align_corners=False)  # (B, Q, H, W)
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    normalised = (maps - low) / (high - low).clamp(min=1e-8)
    return images, normalised.cpu().numpy()


def choose_threshold(
    maps: Iterable[np.ndarray], masks: Iterable[np.ndarray], *, setting: str = "daam.num_calibration"
) -> float:
    """The threshold, a multiple of 0.01, at which `maps >= threshold` has the largest IoU with `masks`.

    maps: float in 0..1, negative where a pixel is never to be predicted, masks: bool, pairs of equal shape;
    intersections and unions are summed over all pairs. Give it training samples only. Equal IoUs: the smaller
    threshold. setting: the parameter that says how many samples these are.
    Raises: UserError without a single mask pixel to go by.
    """
    edges = np.linspace(0, 1, _NUM_BINS + 1)
    inside, outside = np.zeros(_NUM_BINS), np.zeros(_NUM_BINS)
    num_inside = 0
    for values, mask in zip(maps, masks, strict=True):
        num_inside += int(mask.sum())
        inside += np.histogram(values[mask], bins=edges)[0]
        outside += np.histogram(values[~mask], bins=edges)[0]
    if not num_inside:
        raise UserError(f"{setting}: no mask among these training samples to choose a threshold by; raise it")
    hits = inside[::-1].cumsum()[::-1]  # mask pixels at or above each edge
    false_alarms = outside[::-1].cumsum()[::-1]
    return float(edges[np.argmax(hits / (num_inside + false_alarms))])
