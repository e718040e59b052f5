"""From Text to Mask: label maps of real images whose categories are known (Xiao et al., arXiv 2309.04109), a baseline.

A real image is noised once and shown to the UNet with a prompt that names its categories. A category is
likely where pixels attend to its words, and pixels that attend to each other get one label. Nothing is sampled or
trained. A dense CRF may follow (dense_crf).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffground.baselines.daam import choose_threshold
from diffground.data.palette import IGNORE
from diffground.diffusion.cross_attention import WordMaps
from diffground.diffusion.generator import Generator
from diffground.diffusion.self_attention import PixelAffinity, refine
from diffground.errors import UserError
from diffground.vocabulary import photograph_of


@dataclass(frozen=True)
class Text2Mask:
    """The generator and the settings of its single pass over an image. Raises: UserError for settings out of range."""

    generator: Generator
    noise_frac: float
    """How far to noise, as a share of the schedule: 0 is its first timestep, 1 its last."""
    word_sizes: tuple[int, ...]
    """Sides of the cross-attention layers that are averaged, px of the layer; empty: all layers."""
    num_noises: int
    """Noise draws, one UNet pass each, whose maps are averaged."""
    power: int
    """Number of times a map is spread by self-attention; 0: never."""
    max_affinity_size: int
    """Largest side of the self-attention used, px of its layer; the finest up to it is read. Memory grows as side^4."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise_frac <= 1:
            raise UserError(f"text2mask.noise_frac must be 0 to 1, got {self.noise_frac}")
        for name, least in (("num_noises", 1), ("power", 0), ("max_affinity_size", 1)):
            if getattr(self, name) < least:
                raise UserError(f"text2mask.{name} must be at least {least}, got {getattr(self, name)}")

    @torch.no_grad()
    def maps(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]], seeds: Sequence[int]
    ) -> list[np.ndarray]:
        """How much each pixel belongs to each phrase.

        Args:
            images: uint8 (H_i, W_i, 3), of any size; the generator reads them at its own square size.
            phrases: words of the categories in each image ("potted plant"), any number.
            seeds: of each image's noise, all draws of which come from one CPU generator.
        Returns: for each image float32 (Q_i, H_i, W_i) in 0..1: a map's least likely pixel is 0, its likeliest 1. An
            image's maps do not depend on the other images of the batch.
        Raises: UserError for phrases that do not fit into one prompt, and for word_sizes and max_affinity_size by which
            no attention layer of the UNet is left. ValueError when the lengths differ.
        """
        if not len(images) == len(phrases) == len(seeds):
            raise ValueError(f"got {len(images)} images, {len(phrases)} lists of phrases, {len(seeds)} seeds")
        shown = [i for i, of_image in enumerate(phrases) if of_image]
        maps = [np.zeros((0, *image.shape[:2]), dtype=np.float32) for image in images]
        if shown:
            total = self._mean_attention(
                [images[i] for i in shown], [phrases[i] for i in shown], [seeds[i] for i in shown]
            )
            for i, of_image in zip(shown, total, strict=True):
                maps[i] = _fitted(of_image[: len(phrases[i])], images[i].shape[:2])
        return maps

    def _mean_attention(
        self, images: Sequence[np.ndarray], phrases: Sequence[Sequence[str]], seeds: Sequence[int]
    ) -> Tensor:
        """Refined attention, mean over the noise draws, float32 (B, Q, s, s); Q is the most that an image has."""
        found, _ = self.layer_maps(images, phrases, seeds, powers=(self.power,), word_sizes=self.word_sizes)
        return found[:, 0].mean(dim=2)

    @torch.no_grad()
    def layer_maps(
        self,
        images: Sequence[np.ndarray],
        phrases: Sequence[Sequence[str]],
        seeds: Sequence[int],
        *,
        powers: Sequence[int],
        word_sizes: Sequence[int] = (),
    ) -> tuple[Tensor, list[int]]:
        """What the function `layer_maps` reads of the noised images, mean over the noise draws."""
        prompts = [photograph_of(*of_image) for of_image in phrases]
        weights = self.generator.token_weights(prompts, phrases)
        clean = self.generator.encode(np.stack([_squared(image, self.generator.image_size) for image in images]))
        timestep = round(self.noise_frac * (self.generator.scheduler(1).config.num_train_timesteps - 1))
        passes = [
            layer_maps(
                self.generator,
                self.generator.add_noise(clean, noise, timestep=timestep),
                prompts,
                weights,
                timestep=timestep,
                powers=powers,
                max_affinity_size=self.max_affinity_size,
                word_sizes=word_sizes,
            )
            for noise in self._noises(clean, seeds)
        ]
        return torch.stack([maps for maps, _ in passes]).mean(dim=0), passes[0][1]

    def _noises(self, clean: Tensor, seeds: Sequence[int]) -> Tensor:
        """float32 (num_noises, B, C, h, w), standard normal."""
        shape = (self.num_noises, *clean.shape[1:])
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(draws, dim=1).to(clean.device)


@torch.no_grad()
def layer_maps(
    generator: Generator,
    noisy: Tensor,
    prompts: Sequence[str],
    weights: Tensor,
    *,
    timestep: int,
    powers: Sequence[int],
    max_affinity_size: int,
    word_sizes: Sequence[int] = (),
) -> tuple[Tensor, list[int]]:
    """Attention to words in one UNet pass, by layer, spread by self-attention.

    Args:
        noisy: float (B, C, h, w), latents at `timestep`.
        weights: float (B, T, Q), as Generator.token_weights.
        powers: numbers of times that maps are spread, P of them; 0: not at all.
        max_affinity_size: as Text2Mask.
        word_sizes: only cross-attention layers of these sides; empty: all.
    Returns: float32 (B, P, Q, L, s, s), zero mean over a map's pixels, s the side of the largest layer read; the sides
        of these L layers.
    Raises: UserError for word_sizes and max_affinity_size by which no attention layer of the UNet is left.
    """
    words, affinity = WordMaps(weights), PixelAffinity(batch_size=len(noisy))
    generator.denoise(
        noisy,
        prompts,
        timestep=timestep,
        recorder=words,
        affinity=affinity if any(powers) else None,
        max_affinity_size=max_affinity_size,
    )
    used = [i for i, size in enumerate(words.sizes) if not word_sizes or size in word_sizes]
    if not used:
        there = ", ".join(map(str, sorted(set(words.sizes))))
        raise UserError(f"text2mask.word_sizes must name some of this UNet's ({there}), got {tuple(word_sizes)}")
    finest = max(words.sizes[i] for i in used)
    maps = words.resized(finest, mode="bilinear")[:, :, used]  # (B, Q, L, s, s)
    # A constant passes through refinement and is normalised away; without it less is lost to rounding.
    maps = maps - maps.mean(dim=(3, 4), keepdim=True)
    matrix = affinity.finest()
    if any(powers) and matrix is None:
        raise UserError(
            f"text2mask.max_affinity_size is {max_affinity_size}, this UNet has larger self-attention only at this "
            "image size; raise it, or set text2mask.power to 0"
        )
    return torch.stack([_spread(maps, matrix, power) for power in powers], dim=1), [words.sizes[i] for i in used]


def _spread(maps: Tensor, affinity: Tensor | None, power: int) -> Tensor:
    """Maps (B, Q, L, s, s), averaged `power` times over the pixels that belong together."""
    if affinity is None or not power:
        return maps
    side = round(affinity.shape[-1] ** 0.5)
    flat = maps.flatten(1, 2)  # (B, Q * L, s, s)
    coarse = F.interpolate(flat, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    refined = refine(coarse, affinity, power=power)
    return F.interpolate(refined, size=maps.shape[-2:], mode="bilinear", align_corners=False).view_as(maps)


def noise_seed(seed: int, image_id: str) -> int:
    """The seed of an image's noise, the same in every batch, shard and list."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def label_map(maps: np.ndarray, labels: Sequence[int], *, threshold: float, uncertain_band: float = 0.0) -> np.ndarray:
    """Give a pixel to its likeliest category, or to the background where that stays below `threshold`.

    Args:
        maps: float (Q, H, W) in 0..1, as Text2Mask.maps.
        labels: the label of each map, 1..254.
        uncertain_band: pixels less than this from the threshold become IGNORE. A label map that is to be
            scored has none (0); one to train on may leave out its doubtful outlines.
    Returns: uint8 (H, W), 0 background.
    """
    if not len(maps):
        return np.zeros(maps.shape[1:], dtype=np.uint8)
    highest = maps.max(axis=0)  # (H, W)
    likeliest = np.asarray(labels, dtype=np.uint8)[maps.argmax(axis=0)]
    label = np.where(highest >= threshold, likeliest, np.uint8(0))
    label[np.abs(highest - threshold) < uncertain_band] = IGNORE
    return label


def choose_label_threshold(examples: Iterable[tuple[np.ndarray, Sequence[int], np.ndarray]]) -> float:
    """The threshold, a multiple of 0.01, at which label maps fit true ones best. Give it training images only.

    examples: (maps, labels) as in label_map, and the true label uint8 (H, W), 255 not scored. Best is the IoU of
    the categories' pixels, summed over all images and categories; a pixel counts for the category that label_map gives
    it. Raises: UserError without a single labelled pixel.
    """
    pairs = [pair for maps, labels, label in examples for pair in _competing(maps, labels, label)]
    return choose_threshold((m for m, _ in pairs), (mask for _, mask in pairs), setting="text2mask.num_calibration")


def image_level_labels(label: np.ndarray, phrases: Mapping[int, str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The image-level labels: the labels of `phrases` that occur in `label`, in their order, and their phrases."""
    present = tuple(value for value in phrases if (label == value).any())
    return present, tuple(phrases[value] for value in present)


def _competing(maps: np.ndarray, labels: Sequence[int], label: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each map where it is the likeliest, -1 elsewhere, and its category's true pixels; both of the scored pixels."""
    scored = label != IGNORE
    likeliest = maps.argmax(axis=0) if len(maps) else None
    return [(np.where(likeliest == q, maps[q], -1)[scored], label[scored] == value) for q, value in enumerate(labels)]


def _squared(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 (H, W, 3) -> (side, side, 3); the aspect ratio is given up, so that the whole image is seen."""
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def _fitted(maps: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """Maps (Q, s, s) resized to the image and normalised, float32 (Q, H, W) in 0..1."""
    maps = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]  # (Q, H, W)
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return ((maps - low) / (high - low).clamp(min=1e-8)).cpu().numpy()
