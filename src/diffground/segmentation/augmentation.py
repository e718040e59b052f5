"""Random views of training images: mirrored, scaled and shifted, recoloured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffground.data.palette import IGNORE

_SCALE = (0.5, 1.6)  # of the image in the view; below 1 it is zoomed out, and the rest of the view is not scored
_SHIFT = 0.15  # of the view's side
_BRIGHTNESS, _CONTRAST, _SATURATION = 0.15, (0.7, 1.3), (0.5, 1.5)
_HUE_RAD = 0.3


@dataclass(frozen=True)
class Views:
    """The random views of N images."""

    matrix: Tensor
    """float (N, 2, 3): from the view to the image, both in -1..1."""
    colours: dict[str, Tensor]
    """hue (rad), saturation, contrast, brightness: float (N,)."""

    def __getitem__(self, rows: slice) -> Views:
        return Views(matrix=self.matrix[rows], colours={name: of_all[rows] for name, of_all in self.colours.items()})


def draw_views(num: int, generator: torch.Generator) -> Views:
    """Of `num` images; depends only on `generator`."""

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(num, generator=generator) * (high - low) + low

    low, high = (math.log(s) for s in _SCALE)
    scale = uniform(low, high).exp()
    mirror = torch.where(torch.rand(num, generator=generator) < 0.5, -1.0, 1.0)
    matrix = torch.zeros(num, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = mirror / scale, 1 / scale
    # shifts are in output units, +-1 at the border; zoomed in, the view wanders over the image
    reach = 2 * _SHIFT / scale + (1 - 1 / scale).clamp(min=0)
    matrix[:, :, 2] = (torch.rand(num, 2, generator=generator) * 2 - 1) * reach[:, None]
    colours = {
        "hue": uniform(-_HUE_RAD, _HUE_RAD),
        "saturation": uniform(*_SATURATION),
        "contrast": uniform(*_CONTRAST),
        "brightness": uniform(-_BRIGHTNESS, _BRIGHTNESS),
    }
    return Views(matrix=matrix, colours=colours)


def apply_views(images: Tensor, labels: Tensor, views: Views) -> tuple[Tensor, Tensor]:
    """images float32 (B, 3, S, S) in 0..1, labels uint8 (B, S, S) -> the same kinds.

    Outside of the image a view is grey and labelled 255.
    """
    images, labels = _move(images, labels, views.matrix)
    return _recolour(images, **views.colours), labels


def _move(images: Tensor, labels: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    # 0.5 is moved to 0, which is what grid_sample puts outside
    moved = F.grid_sample(images - 0.5, grid, align_corners=False) + 0.5
    # likewise, 0 outside stands for 255 once labels are counted down from it
    from_ignore = IGNORE - labels[:, None].float()
    moved_labels = IGNORE - F.grid_sample(from_ignore, grid, mode="nearest", align_corners=False)[:, 0]
    return moved, moved_labels.round().to(torch.uint8)


def turn_hue(images: Tensor, angles: Tensor) -> Tensor:
    """Rotate the colours of float images (B, 3, H, W) about the grey axis by `angles`, rad (B,). Not clamped."""
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None] / math.sqrt(3)  # (B, 1, 1)
    spin = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    rotation = cos * torch.eye(3) + (1 - cos) / 3 + sin * spin  # (B, 3, 3), Rodrigues
    return torch.einsum("nij,njhw->nihw", rotation, images)


def _recolour(images: Tensor, *, hue: Tensor, saturation: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    def of_pixels(value: Tensor) -> Tensor:
        return value[:, None, None, None]

    images = turn_hue(images, hue)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * of_pixels(saturation)
    images = (images - 0.5) * of_pixels(contrast) + 0.5 + of_pixels(brightness)
    return images.clamp(0, 1)
