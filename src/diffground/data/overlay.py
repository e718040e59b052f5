"""Masks painted over their image."""

from __future__ import annotations

import numpy as np
from PIL import Image

from diffground.data.palette import VOC_PALETTE

_MIN_SIDE_PX = 256
"""Small images are enlarged to at least this side."""
_OPACITY = 0.55


def paint_masks(image: np.ndarray, masks: np.ndarray, *, opacity: float = _OPACITY) -> np.ndarray:
    """uint8 (H, W, 3) and bool (Q, H, W) -> uint8 (H, W, 3): mask i in colour i + 1 of the VOC palette."""
    painted = image.astype(np.float32)
    for i, mask in enumerate(masks):
        colour = VOC_PALETTE[(i + 1) % len(VOC_PALETTE)]
        painted[mask] = (1 - opacity) * painted[mask] + opacity * colour
    return painted.round().astype(np.uint8)


def draw_masks(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The image, and next to it the image with its masks painted.

    Args: image uint8 (H, W, 3); masks bool (Q, H, W). Returns: uint8 (k H, 2 k W, 3), enlarged by a whole number k.
    """
    pair = np.concatenate([image, paint_masks(image, masks)], axis=1)
    factor = -(-_MIN_SIDE_PX // image.shape[0])
    enlarged = Image.fromarray(pair).resize((pair.shape[1] * factor, pair.shape[0] * factor), Image.Resampling.NEAREST)
    return np.asarray(enlarged)
