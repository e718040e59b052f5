"""Training data of the detector: scenes of varied artworks in RAM, some reconstructed by the generator's VAE."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from common import mixed_precision, sample_scene, to_tensor
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from diffground.data.stickers.sprites import SpriteBook
from diffground.segmentation.augmentation import turn_hue


@dataclass(frozen=True)
class DetectorScenes:
    """`images` uint8 (N, 3, S, S); `index_maps` uint8 (N, S, S), 0 background, i object i;
    `labels` int64 (N, 3), class of object i at [:, i - 1], 0 for none."""

    images: Tensor
    index_maps: Tensor
    labels: Tensor


def make_scenes(
    book: SpriteBook,
    vae: AutoencoderKL,
    *,
    categories: list[str],
    num_scenes: int,
    further_frac: float,
    colour_frac: float,
    image_size: int,
    reconstructed_frac: float,
    latent_noise: float,
    seed: int,
    device: torch.device,
) -> DetectorScenes:
    """One to three objects per scene, in turn; the first `reconstructed_frac` of them become VAE reconstructions.

    `categories`: class i + 1 is categories[i]; all concepts of `book`.
    """
    images = np.zeros((num_scenes, image_size, image_size, 3), dtype=np.uint8)
    index_maps = np.zeros((num_scenes, image_size, image_size), dtype=np.uint8)
    labels = np.zeros((num_scenes, 3), dtype=np.int64)
    for i in tqdm(range(num_scenes), desc="scenes", mininterval=10):
        scene = sample_scene(
            book,
            seed=seed,
            index=i,
            num_objects=1 + i % 3,
            further_frac=further_frac,
            colour_frac=colour_frac,
            image_size=image_size,
        )
        images[i] = scene.image
        for k, (mask, sprite) in enumerate(zip(scene.masks, scene.sprites, strict=True)):
            index_maps[i][mask] = k + 1
            labels[i, k] = categories.index(sprite.category) + 1
    num = round(reconstructed_frac * num_scenes)
    images[:num] = reconstruct(images[:num], vae, latent_noise=latent_noise, seed=seed, device=device)
    return DetectorScenes(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        index_maps=torch.from_numpy(index_maps),
        labels=torch.from_numpy(labels),
    )


@torch.no_grad()
def reconstruct(
    images: np.ndarray, vae: AutoencoderKL, *, latent_noise: float, seed: int, device: torch.device
) -> np.ndarray:
    """Encode, disturb and decode, as the generator's decoder does with imperfect latents. uint8 (N, S, S, 3)."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for start in tqdm(range(0, len(images), 64), desc="reconstructions", mininterval=10):
        with mixed_precision(device):
            latents = vae.encode(to_tensor(images[start : start + 64]).to(device)).latent_dist.mean.float()
            strength = torch.rand(len(latents), 1, 1, 1, generator=generator) * latent_noise / vae.config.scaling_factor
            latents = latents + (strength * torch.randn(latents.shape, generator=generator)).to(device)
            decoded = vae.decode(latents).sample.float()
        parts.append(((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def augmented_batch(
    scenes: DetectorScenes, *, batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Images float32 (B, 3, S, S) in 0..1, index maps uint8 (B, S, S), labels (B, 3): flipped, scaled, recoloured."""
    chosen = torch.randint(len(scenes.images), (batch_size,), generator=generator)
    images, index_maps = _move(scenes.images[chosen].float() / 255, scenes.index_maps[chosen], generator)
    return tint(images, generator), index_maps, scenes.labels[chosen]


def _uniform(generator: torch.Generator, num: int, low: float, high: float) -> Tensor:
    return (torch.rand(num, generator=generator) * (high - low) + low)[:, None, None, None]


def _move(images: Tensor, index_maps: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror half of the batch, scale by 0.85 to 1.2, shift by up to 6 %."""
    n = len(images)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    scale = torch.rand(n, generator=generator) * 0.35 + 0.85
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = mirror / scale, 1 / scale
    matrix[:, :, 2] = torch.rand(n, 2, generator=generator) * 0.24 - 0.12
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    # Border pixels are repeated, not reflected: a reflected part of an object would be an object without a label.
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    moved_maps = F.grid_sample(
        index_maps[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return moved, moved_maps[:, 0].byte()


def tint(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn the hue a little, change contrast and brightness of the whole image; blur or noise on a share."""
    n = len(images)
    hue = torch.where(torch.rand(n, generator=generator) < 0.2, math.pi, 0.3) * (
        torch.rand(n, generator=generator) * 2 - 1
    )
    images = turn_hue(images, hue)
    images = (images - 0.5) * _uniform(generator, n, 0.7, 1.25) + 0.5 + _uniform(generator, n, -0.12, 0.12)
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    amount = torch.where(torch.rand(n, generator=generator) < 0.3, 1.0, 0.0)[:, None, None, None]
    amount = amount * _uniform(generator, n, 0.2, 1.0)
    images = images + amount * (blurred - images)
    noise = torch.randn(images.shape, generator=generator) * _uniform(generator, n, -0.03, 0.03).clamp(min=0)
    return (images + noise).clamp(0, 1)
