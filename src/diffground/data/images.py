"""Images as users have them: a file, a PIL image or an array -> uint8 RGB."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diffground.errors import UserError, in_one_line

ImageLike = str | Path | Image.Image | np.ndarray
"""A path, a PIL image of any mode, or an array: uint8 (H, W) or (H, W, 3), any size."""

_BROKEN = (
    OSError,
    SyntaxError,  # of damaged PNG and EXIF
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What PIL raises for damaged files."""


def read_image(image: ImageLike) -> np.ndarray:
    """uint8 (H, W, 3), RGB, upright (EXIF orientation is applied).

    Transparent parts are shown on white. Grey values of 16 bits are scaled from 0..65535 to 0..255. Of an animation,
    the first frame is read.

    Raises: UserError for a file that is missing, damaged, no image or larger than PIL's limit, and for an array of
    another shape, type or range.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    name = "the image"
    if not isinstance(image, Image.Image):
        name, image = str(image), open_image(Path(image))
    return rgb_pixels(image, name=name, upright=True)


def open_image(path: Path) -> Image.Image:
    """The decoded image of any mode, as it is stored. Raises: UserError as read_image does."""
    if not path.is_file():
        raise UserError(f"{path}: no such image")
    try:
        with path.open("rb") as file:  # PIL would leave the file of an animation or a damaged image open
            image = Image.open(file)
            image.load()
            image.getexif()  # kept in the image from here on
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{path}: too large ({in_one_line(error, limit=100).rstrip('.')}); scale it down, or raise "
            f"PIL.Image.MAX_IMAGE_PIXELS for files that you trust"
        ) from None
    except _BROKEN as error:
        raise _unreadable(path, error) from None
    return image


def rgb_pixels(image: Image.Image, *, name: str | Path, upright: bool) -> np.ndarray:
    """uint8 (H, W, 3) as read_image says, but as it is stored unless `upright`. `name`: for messages."""
    try:
        if upright:
            image = ImageOps.exif_transpose(image)
        if image.mode == "I" or image.mode.startswith("I;16"):
            image = _in_8_bits(image, name)
        elif image.mode == "F":
            raise UserError(f"{name}: has floating-point pixels, whose range is not known; save it with 8 or 16 bits")
        if image.has_transparency_data:
            shown = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
        return np.array(image.convert("RGB"))
    except _BROKEN as error:
        raise _unreadable(name, error) from None


def stored_and_upright_size(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of the pixels in the file, and of the image as it is shown (EXIF orientation). Only the header
    is read. Raises: UserError as read_image does."""
    if not path.is_file():
        raise UserError(f"{path}: no such image")
    try:
        with Image.open(path) as image:
            width, height = image.size
            is_turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None
    return (height, width), ((width, height) if is_turned else (height, width))


def is_stored_upright(path: Path) -> bool:
    """Whether the file has no EXIF orientation, or 1. Raises: UserError as read_image does."""
    try:
        with Image.open(path) as image:
            return image.getexif().get(_ORIENTATION, 1) not in range(2, 9)
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None


_ORIENTATION = 0x0112


def _in_8_bits(image: Image.Image, name: str | Path) -> Image.Image:
    # PIL's own conversion cuts all above 255 off
    values = np.array(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise UserError(
            f"{name}: its pixels have values of {values.min()}..{values.max()}, must be 0..65535; "
            f"save it with 8 or 16 bits"
        )
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _unreadable(name: str | Path, error: Exception) -> UserError:
    reason = in_one_line(error, limit=100) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "of no format that is known"
    return UserError(f"{name}: not an image that can be read ({reason})")


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
