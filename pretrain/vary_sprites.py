"""Varied copies of artworks: shape, colour and outline change, so that a detector generalises beyond the originals."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffground.data.stickers.sprites import Sprite, SpriteBook
from diffground.segmentation.augmentation import turn_hue

CANVAS_PX = 136
_SPRITE_PX = 100  # longest side on the canvas before the warp; the margin is for the warp and the outline


def vary_book(book: SpriteBook, *, num_copies: int, seed: int) -> SpriteBook:
    """The originals and `num_copies` varied copies of each artwork of `train` and `further`; `val` stays empty."""
    generator = torch.Generator().manual_seed(seed)

    def vary(sprites: list[Sprite]) -> list[Sprite]:
        copies = [_copies(s, num_copies=num_copies, generator=generator) for s in sprites]
        return [*sprites, *(copy for group in copies for copy in group)]

    return SpriteBook(
        train={c: vary(sprites) for c, sprites in book.train.items()},
        val={},
        further={c: vary(sprites) for c, sprites in book.further.items()},
    )


def _copies(sprite: Sprite, *, num_copies: int, generator: torch.Generator) -> list[Sprite]:
    rgba = torch.from_numpy(sprite.image.copy()).permute(2, 0, 1).float() / 255
    scale = _SPRITE_PX / max(rgba.shape[1:])
    size = [max(1, round(side * scale)) for side in rgba.shape[1:]]
    alpha = rgba[3:]
    premultiplied = torch.cat([rgba[:3] * alpha, alpha])
    small = F.interpolate(premultiplied[None], size=size, mode="area")[0]
    top, left = (CANVAS_PX - size[0]) // 2, (CANVAS_PX - size[1]) // 2
    canvas = torch.zeros(4, CANVAS_PX, CANVAS_PX)
    canvas[:, top : top + size[0], left : left + size[1]] = small
    warped = _warp(canvas.expand(num_copies, -1, -1, -1), generator)
    alpha = warped[:, 3:]
    colour = _recolour(warped[:, :3] / alpha.clamp(min=1e-3), generator)
    colour, alpha = _outline(colour, alpha, generator)
    images = torch.cat([colour, alpha], dim=1).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Sprite(category=sprite.category, name=sprite.name, image=_crop(image)) for image in images]


def _crop(image: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(image[..., 3] >= 8)
    return image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


def _uniform(generator: torch.Generator, num: int, low: float, high: float) -> Tensor:
    return torch.rand(num, generator=generator) * (high - low) + low


def _warp(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, stretch, shear, rotate and deform smoothly."""
    n = len(images)
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    angle = _uniform(generator, n, -0.2, 0.2)
    stretch = _uniform(generator, n, -0.25, 0.25).exp()
    shear = _uniform(generator, n, -0.2, 0.2)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    shape = torch.stack([torch.stack([flip * stretch, shear], 1), torch.stack([torch.zeros(n), 1 / stretch], 1)], 1)
    matrix = torch.cat([turn @ shape, torch.zeros(n, 2, 1)], dim=2)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    bumps = torch.randn(n, 2, 4, 4, generator=generator) * _uniform(generator, n, 0, 0.09)[:, None, None, None]
    grid = grid + F.interpolate(bumps, size=images.shape[-2:], mode="bicubic").permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, align_corners=False)


def _recolour(colour: Tensor, generator: torch.Generator) -> Tensor:
    """Turn the hue, change saturation, gamma and gain; sometimes grey, sometimes with the lightness inverted."""
    n = len(colour)

    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    wide = torch.rand(n, generator=generator) < 0.5
    hue = torch.where(wide, _uniform(generator, n, -math.pi, math.pi), _uniform(generator, n, -0.25, 0.25))
    colour = turn_hue(colour, hue)
    grey = colour.mean(dim=1, keepdim=True)
    saturation = torch.where(torch.rand(n, generator=generator) < 0.12, 0.0, _uniform(generator, n, 0.4, 1.5))
    colour = (grey + (colour - grey) * each(saturation)).clamp(0, 1)
    invert = each(torch.rand(n, generator=generator) < 0.12)
    grey = colour.mean(dim=1, keepdim=True)
    colour = torch.where(invert, colour + 1 - 2 * grey, colour).clamp(1e-3, 1)
    colour = colour ** each(_uniform(generator, n, -0.5, 0.5).exp())
    gain = torch.rand(n, 3, generator=generator)[:, :, None, None] * 0.4 + 0.7
    return (colour * gain).clamp(0, 1)


def _outline(colour: Tensor, alpha: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A dark line around a third of the copies, as in the drawn style of OpenMoji."""
    n = len(colour)
    chosen = (torch.rand(n, generator=generator) < 0.35)[:, None, None, None].float()
    grown = F.max_pool2d(alpha, 7, stride=1, padding=3) * chosen
    ink = _uniform(generator, n, 0.0, 0.25)[:, None, None, None]
    new_alpha = torch.maximum(alpha, grown)
    return torch.where(
        new_alpha > 0, (colour * alpha + ink * (new_alpha - alpha)) / new_alpha.clamp(min=1e-3), 0
    ), new_alpha
