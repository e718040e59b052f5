"""Pictures of masks: images with their categories in colour, in rows under headings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffground.data.palette import IGNORE, VOC_PALETTE

_MARGIN = 8
_CAPTION = 16
_HEADING = 22
_OPACITY = 0.55
_LEAST_PX = 128


@dataclass(frozen=True)
class Picture:
    """image: uint8 (H, W, 3). caption: one short line, written under it."""

    image: np.ndarray
    caption: str = ""


@dataclass(frozen=True)
class Row:
    """Pictures in a row under a heading."""

    heading: str
    pictures: Sequence[Picture]


def overlay(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Colour and outline the objects of an image.

    Args:
        image: uint8 (H, W, 3), left as it is.
        label: uint8 (H, W), 0 background, 255 ignore.
    Returns: uint8 (n H, n W, 3); n is 1, or what makes the shorter side of a small image at least 128 px, so that
        the outline, 1 px, stays thin.
    """
    factor = -(-_LEAST_PX // min(label.shape))
    image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    label = label.repeat(factor, axis=0).repeat(factor, axis=1)
    marked = (label != 0) & (label != IGNORE)
    colour = VOC_PALETTE[label].astype(np.float32)
    blended = np.where(marked[..., None], (1 - _OPACITY) * image + _OPACITY * colour, image)
    edge = np.zeros_like(marked)
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    edge[1:] |= label[1:] != label[:-1]
    blended[edge & (label != IGNORE)] = 255
    return blended.round().astype(np.uint8)


def label_picture(image: np.ndarray, label: np.ndarray, categories: Sequence[str]) -> Picture:
    """The overlay, and the names of the objects in it: `categories[i]` is label i + 1."""
    return Picture(overlay(image, label), names_in(label, categories))


def names_in(label: np.ndarray, categories: Sequence[str]) -> str:
    """The categories that have a pixel, with commas; `categories[i]` is label i + 1."""
    values = [value for value in np.unique(label).tolist() if value not in (0, IGNORE)]
    return ", ".join(categories[value - 1] for value in values)


def mask_overlay(image: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """Colour bool masks (H, W) of `image`, the i-th in the colour of label i + 1; later masks cover earlier ones."""
    label = np.zeros(image.shape[:2], dtype=np.uint8)
    for i, mask in enumerate(masks):
        label[mask] = i + 1
    return overlay(image, label)


def draw_gallery(path: Path, rows: Sequence[Row], *, picture_px: int = 128) -> None:
    """Write the rows as one PNG, every picture `picture_px` wide and high, pixels kept sharp."""
    columns = max((len(row.pictures) for row in rows), default=0)
    caption_px = max(_CAPTION, picture_px // 12)
    cell_height = picture_px + caption_px + _MARGIN
    canvas = Image.new(
        "RGB",
        (_MARGIN + columns * (picture_px + _MARGIN), _MARGIN + len(rows) * (_HEADING + cell_height)),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    heading_font, caption_font = ImageFont.load_default(14), ImageFont.load_default(caption_px - 6)
    top = _MARGIN
    for row in rows:
        draw.text((_MARGIN, top), row.heading, fill="black", font=heading_font)
        top += _HEADING
        for i, picture in enumerate(row.pictures):
            left = _MARGIN + i * (picture_px + _MARGIN)
            scaled = Image.fromarray(picture.image).resize((picture_px, picture_px), Image.Resampling.NEAREST)
            canvas.paste(scaled, (left, top))
            caption = _fit(draw, picture.caption, caption_font, width=picture_px)
            draw.text((left, top + picture_px + 2), caption, fill="#444444", font=caption_font)
        top += cell_height
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, optimize=True)


def _fit(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, *, width: int
) -> str:
    """`text`, cut with an ellipsis where it is wider than `width` px."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(f"{text}…", font=font) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
