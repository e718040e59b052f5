"""Sheets of images with a line of words below each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_LABEL_PX = 24


def draw_sheet(images: np.ndarray, labels: Sequence[str], *, columns: int) -> Image.Image:
    """`images` uint8 (N, S, S, 3) row by row, each above its label of at most two lines."""
    tile = images.shape[1]
    sheet = Image.new("RGB", (columns * tile, -(-len(images) // columns) * (tile + _LABEL_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = k % columns * tile, k // columns * (tile + _LABEL_PX)
        sheet.paste(Image.fromarray(image), (x, y))
        draw.text((x + 3, y + tile), label, fill="black", spacing=0)
    return sheet
