"""Pictures that a user drops into the page: checked before they are decoded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffground.data.images import read_image, stored_and_upright_size
from diffground.errors import UserError

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000
MAX_FILES = 8
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""PIL's names. Others are not tried: PIL runs another program for some of them (EPS)."""


@dataclass(frozen=True)
class Upload:
    """A picture."""

    name: str
    """Of the user's file."""
    pixels: np.ndarray
    """uint8 (H, W, 3), upright."""
    digest: str
    """SHA-256 of the file."""
    note: str = ""
    """What was done to it."""


def read_upload(path: Path, *, max_side: int) -> Upload:
    """A file that the browser sent; scaled down to `max_side` px where it is larger, which the note says.

    Raises: UserError, which names the file as the user does, for one that is too large or no picture.
    """
    name = path.name
    num_bytes = path.stat().st_size
    if num_bytes > MAX_BYTES:
        raise UserError(
            f"{name}: has {num_bytes / 2**20:.0f} MiB, at most {MAX_BYTES // 2**20} are read; scale it down"
        )
    try:
        with Image.open(path, formats=FORMATS):
            pass
    except Image.DecompressionBombError:
        raise _too_many_pixels(name) from None
    except Exception:  # whatever a plugin raises for a file that is not of its kind
        raise UserError(f"{name}: not a picture that is read here; save it as {', '.join(FORMATS)}") from None
    try:
        _, (height, width) = stored_and_upright_size(path)
        if height * width > MAX_PIXELS:
            raise _too_many_pixels(name)
        pixels = read_image(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), name)) from None
    note = ""
    if max(height, width) > max_side:
        scale = max_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
        note = f"scaled down from {width} × {height} px"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Upload(name, pixels, digest, note)


def _too_many_pixels(name: str) -> UserError:
    return UserError(f"{name}: has more than {MAX_PIXELS // 10**6} megapixels; scale it down")
