"""Pictures as HTML of the page: an image with its masks painted, and what the colours mean."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Sequence
from html import escape

import numpy as np
from PIL import Image

from diffground.data.overlay import paint_masks
from diffground.data.palette import VOC_PALETTE
from diffground.studio.found import Found

_JPEG_FROM_PX = 256
"""Larger pictures are sent as JPEG: they are many times smaller, and nothing is measured on them."""


def picture(image: np.ndarray, *, alt: str) -> str:
    """uint8 (H, W, 3) -> an <img> with its content in it."""
    buffer = io.BytesIO()
    is_small = max(image.shape[:2]) < _JPEG_FROM_PX
    Image.fromarray(image).save(buffer, "PNG" if is_small else "JPEG", quality=92)
    data = base64.b64encode(buffer.getvalue()).decode()
    kind = "png" if is_small else "jpeg"
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{data}">'


def found_html(found: Sequence[Found], *, shown: Collection[str], threshold: float, opacity: float) -> str:
    """The images with the masks of the words in `shown`, each with its legend."""
    figures = "".join(_figure(one, shown=shown, threshold=threshold, opacity=opacity) for one in found)
    return f'<div class="dg-grid dg-grid-{min(len(found), 4)}">{figures}</div>'


def _figure(one: Found, *, shown: Collection[str], threshold: float, opacity: float) -> str:
    masks = one.masks(threshold)
    is_shown = np.array([word in shown for word in one.words])
    painted = paint_masks(one.image, masks & is_shown[:, None, None], opacity=opacity)
    visible = [word for word in one.words if word in shown]
    alt = f"{one.title}, with the masks of {', '.join(visible)}" if visible else one.title
    entries = [
        legend_entry(word, i, text=f"{word} {mask.mean():.1%}" if mask.any() else f"{word}: not found", faint=not on)
        for i, (word, mask, on) in enumerate(zip(one.words, masks, is_shown, strict=True))
    ]
    caption = f'<span class="dg-title">{escape(one.title)}</span> {" ".join(entries)}'
    return f'<figure class="dg-figure">{picture(painted, alt=alt)}<figcaption>{caption}</figcaption></figure>'


def legend_entry(word: str, place: int, *, text: str | None = None, faint: bool = False) -> str:
    """A coloured square and a word; place: of its mask, which decides the colour."""
    red, green, blue = VOC_PALETTE[(place + 1) % len(VOC_PALETTE)].tolist()
    kind = "dg-word dg-faint" if faint else "dg-word"
    square = f'<i style="background: rgb({red}, {green}, {blue})"></i>'
    return f'<span class="{kind}">{square}{escape(word if text is None else text)}</span>'


def note_html(text: str) -> str:
    """A line in place of pictures."""
    return f'<p class="dg-note">{escape(text)}</p>'
