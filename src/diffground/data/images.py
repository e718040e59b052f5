"""Images as users have them: a file, a PIL image or an array -> uint8 RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from diffground.errors import UserError

ImageLike = str | Path | Image.Image | np.ndarray
"""A path, a PIL image of any mode, or an array: uint8 (H, W) or (H, W, 3), any size."""


def read_image(image: ImageLike) -> np.ndarray:
    """uint8 (H, W, 3), RGB, upright (EXIF orientation is applied).

    Raises: UserError for a file that is missing or no image, and for an array of another shape, type or range.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if not isinstance(image, Image.Image):
        path = Path(image)
        if not path.is_file():
            raise UserError(f"{path}: no such image")
        try:
            image = Image.open(path)
            image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split())[:100]
            raise UserError(f"{path}: not an image that can be read ({reason})") from None
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def _from_array(array: np.ndarray[Any, Any]) -> np.ndarray:
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind not in "iu" or 0 in array.shape:
        raise UserError(
            f"an image array must be whole numbers (H, W) or (H, W, 3), got {array.dtype} {tuple(array.shape)}"
        )
    if array.min() < 0 or array.max() > 255:
        raise UserError(f"an image array must have values of 0..255, got {array.min()}..{array.max()}")
    return array.astype(np.uint8)
