"""From Text to Mask: label maps of real images whose categories are known (Xiao et al., arXiv 2309.04109), a baseline.

A real image is noised once and shown to the UNet with a prompt that names its categories. A category is
likely where pixels attend to its words, and pixels that attend to each other get one label. Nothing is sampled or
trained. A dense CRF may follow (dense_crf).
"""

from __future__ import annotations

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
        prompts = [photograph_of(*of_image) for of_image in phrases]
        weights = self.generator.token_weights(prompts, phrases)
        clean = self.generator.encode(np.stack([_squared(image, self.generator.image_size) for image in images]))
        timestep = round(self.noise_frac * (self.generator.scheduler(1).config.num_train_timesteps - 1))
        maps = [
            self._look(self.generator.add_noise(clean, noise, timestep=timestep), prompts, weights, timestep)
            for noise in self._noises(clean, seeds)
        ]
        return torch.stack(maps).mean(dim=0)

    def _noises(self, clean: Tensor, seeds: Sequence[int]) -> Tensor:
        """float32 (num_noises, B, C, h, w), standard normal."""
        shape = (self.num_noises, *clean.shape[1:])
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(draws, dim=1).to(clean.device)

    def _look(self, noisy: Tensor, prompts: Sequence[str], weights: Tensor, timestep: int) -> Tensor:
        """Refined attention of one pass, float32 (B, Q, s, s); s is the side of the largest cross-attention used."""
        words, affinity = WordMaps(weights), PixelAffinity(batch_size=len(noisy))
        self.generator.denoise(
            noisy,
            prompts,
            timestep=timestep,
            recorder=words,
            affinity=affinity if self.power else None,
            max_affinity_size=self.max_affinity_size,
        )
        used = [i for i, size in enumerate(words.sizes) if not self.word_sizes or size in self.word_sizes]
        if not used:
            there = ", ".join(map(str, sorted(set(words.sizes))))
            raise UserError(f"text2mask.word_sizes must name some of this UNet's ({there}), got {self.word_sizes}")
        finest = max(words.sizes[i] for i in used)
        maps = words.resized(finest, mode="bilinear")[:, :, used].mean(dim=2)  # (B, Q, s, s)
        # A constant passes through refinement and is normalised away; without it less is lost to rounding.
        maps = maps - maps.mean(dim=(2, 3), keepdim=True)
        if not self.power:
            return maps
        matrix = affinity.finest()
        if matrix is None:
            raise UserError(
                f"text2mask.max_affinity_size is {self.max_affinity_size}, this UNet has larger self-attention only at "
                "this image size; raise it, or set text2mask.power to 0"
            )
        side = round(matrix.shape[-1] ** 0.5)
        coarse = F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        refined = refine(coarse, matrix, power=self.power)
        return F.interpolate(refined, size=maps.shape[-2:], mode="bilinear", align_corners=False)


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
