"""Random views of training images: mirrored, scaled and shifted, recoloured."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffground.data.palette import IGNORE

_SCALE = (0.5, 1.6)  # of the image in the view; below 1 it is zoomed out, and the rest of the view is not scored
_SHIFT = 0.15  # of the view's side
_BRIGHTNESS, _CONTRAST, _SATURATION = 0.15, (0.7, 1.3), (0.5, 1.5)
_HUE_RAD = 0.3


def random_views(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """images float32 (B, 3, S, S) in 0..1, labels uint8 (B, S, S) -> the same kinds; a function of `generator` alone.

    Outside of the image a view is grey and labelled 255.
    """
    images, labels = _move(images, labels, generator)
    return _recolour(images, generator), labels


def _move(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n = len(images)
    low, high = (math.log(s) for s in _SCALE)
    scale = (torch.rand(n, generator=generator) * (high - low) + low).exp()
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = mirror / scale, 1 / scale
    # shifts are in output units, +-1 at the border; zoomed in, the view wanders over the image
    reach = 2 * _SHIFT / scale + (1 - 1 / scale).clamp(min=0)
    matrix[:, :, 2] = (torch.rand(n, 2, generator=generator) * 2 - 1) * reach[:, None]
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    # 0.5 is moved to 0, which is what grid_sample puts outside
    moved = F.grid_sample(images - 0.5, grid, align_corners=False) + 0.5
    # likewise, 0 outside stands for 255 once labels are counted down from it
    from_ignore = IGNORE - labels[:, None].float()
    moved_labels = IGNORE - F.grid_sample(from_ignore, grid, mode="nearest", align_corners=False)[:, 0]
    return moved, moved_labels.round().to(torch.uint8)


def _recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    n = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return (torch.rand(n, generator=generator) * (high - low) + low)[:, None, None, None]

    hue = uniform(-_HUE_RAD, _HUE_RAD)[:, :, :, 0]  # (B, 1, 1)
    cos, sin = hue.cos(), hue.sin() / math.sqrt(3)
    spin = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    rotation = cos * torch.eye(3) + (1 - cos) / 3 + sin * spin  # (B, 3, 3), about the grey axis (Rodrigues)
    images = torch.einsum("nij,njhw->nihw", rotation, images)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * uniform(*_SATURATION)
    images = (images - 0.5) * uniform(*_CONTRAST) + 0.5 + uniform(-_BRIGHTNESS, _BRIGHTNESS)
    return images.clamp(0, 1)
