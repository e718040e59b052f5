"""DAAM: heat maps of words from cross-attention (Tang et al., "What the DAAM", ACL 2023), a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffground.diffusion.cross_attention import WordMaps
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError

_NUM_BINS = 100
_COARSEST_FACTOR = 8  # of the latent's side to a map's; the published implementation does not read these maps
_CHOICE_PX = 64  # side at which layers are chosen


def sample_with_maps(
    generator: Generator,
    prompts: Sequence[str],
    seeds: Sequence[int],
    phrases: Sequence[Sequence[str]],
    sampling: Sampling,
) -> tuple[np.ndarray, np.ndarray]:
    """Sample the prompts: images uint8 (B, H, W, 3), and heat maps of their phrases, float32 (B, Q, H, W) in 0..1.

    The maps are `heat_maps` of the published layers. A map is all zeros for a phrase that is not in the prompt, and
    where a sample has fewer phrases than another.
    """
    images, maps, published = sample_with_layer_maps(generator, prompts, seeds, phrases, sampling)
    return images, heat_maps(maps[:, :, published], generator.image_size).cpu().numpy()


def sample_with_layer_maps(
    generator: Generator,
    prompts: Sequence[str],
    seeds: Sequence[int],
    phrases: Sequence[Sequence[str]],
    sampling: Sampling,
) -> tuple[np.ndarray, Tensor, list[int]]:
    """Sample the prompts, and read the attention to their phrases in every cross-attention layer.

    Returns: images uint8 (B, H, W, 3); attention float32 (B, Q, L, s, s), layers in the order of
        cross_attention_layers: the probabilities of the conditional half, mean over the phrase's tokens, heads and
        steps, resized bicubically to the finest layer's size; the layers that the published implementation reads: the
        second attention of each transformer block, without the middle block and the coarsest maps (an eighth of the
        latent's side).
    """
    recorder = WordMaps(generator.token_weights(prompts, phrases))
    images = generator.sample(prompts, seeds, sampling, recorder=recorder).images
    maps = recorder.resized(recorder.finest_size, mode="bicubic").clamp(min=0)
    coarsest = generator.latent_size // _COARSEST_FACTOR
    named = zip(generator.cross_attention_names, recorder.sizes, strict=True)
    published = [
        i
        for i, (name, size) in enumerate(named)
        if name.endswith("attn2") and not name.startswith("mid_block") and size != coarsest
    ]
    return images, maps, published


def heat_maps(maps: Tensor, image_size: int) -> Tensor:
    """Attention of chosen layers (..., L, s, s) -> heat maps (..., H, W) in 0..1.

    The mean over the layers is resized bicubically and normalised: the least attended pixel of a map is 0, the most
    attended 1.
    """
    mean = maps.mean(dim=-3)
    flat = mean.reshape(-1, 1, *mean.shape[-2:])
    resized = F.interpolate(flat, size=(image_size, image_size), mode="bicubic", align_corners=False)
    low, high = resized.amin(dim=(2, 3), keepdim=True), resized.amax(dim=(2, 3), keepdim=True)
    return ((resized - low) / (high - low).clamp(min=1e-8)).reshape(*mean.shape[:-2], image_size, image_size)


def choose_layers(maps: Tensor, masks: np.ndarray) -> list[int]:
    """The layers whose heat maps fit the masks best, each at its best threshold; rising.

    One after another, the layer is added that raises the IoU most, until none does. Layers are compared at 64 pixels
    per side. Give it training samples only.

    Args:
        maps: float (N, L, s, s), attention as sample_with_layer_maps reads it.
        masks: bool (N, H, W).
    Raises: UserError without a single mask pixel to go by.
    """
    size = min(_CHOICE_PX, masks.shape[-1])
    exact = torch.from_numpy(masks)[None].float()
    small = F.interpolate(exact, size=(size, size), mode="nearest-exact")[0].bool().numpy()

    def iou(layers: list[int]) -> float:
        return best_threshold(heat_maps(maps[:, layers], size).cpu().numpy(), small)[1]

    chosen, best = list[int](), -1.0
    while others := [layer for layer in range(maps.shape[1]) if layer not in chosen]:
        reached = [iou([*chosen, layer]) for layer in others]
        if max(reached) <= best:
            break
        best = max(reached)
        chosen.append(others[reached.index(best)])
    return sorted(chosen)


def choose_threshold(
    maps: Iterable[np.ndarray], masks: Iterable[np.ndarray], *, setting: str = "daam.num_calibration"
) -> float:
    """The threshold of best_threshold."""
    return best_threshold(maps, masks, setting=setting)[0]


def best_threshold(
    maps: Iterable[np.ndarray], masks: Iterable[np.ndarray], *, setting: str = "daam.num_calibration"
) -> tuple[float, float]:
    """The threshold, a multiple of 0.01, at which `maps >= threshold` has the largest IoU with `masks`, and that IoU.

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
    ious = hits / (num_inside + false_alarms)
    best = int(np.argmax(ious))
    return float(edges[best]), float(ious[best])
