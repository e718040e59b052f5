"""Pictures, charts and tables as data URIs, so that the page needs no other file. Equal contents give equal bytes."""

from __future__ import annotations

import io
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffground.report.tables import Table

MOST_PX = 384
"""Longer side of a picture on the page; larger ones are reduced."""
_QUALITY = 88


@dataclass(frozen=True)
class Embedded:
    """An image as the page shows it. src: data URI. alt: what it shows, for those who do not see it. Sizes in px."""

    src: str
    alt: str
    width: int
    height: int


def embed_image(image: np.ndarray, alt: str) -> Embedded:
    """uint8 (H, W, 3) as lossy WebP, its longer side MOST_PX at most."""
    picture = Image.fromarray(image)
    picture.thumbnail((MOST_PX, MOST_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY, method=6)
    return Embedded(data_uri("image/webp", buffer.getvalue()), alt, *picture.size)


def embed_chart(path: Path, alt: str) -> Embedded:
    """A PNG file, its bytes unchanged."""
    with Image.open(path) as picture:
        width, height = picture.size
    return Embedded(data_uri("image/png", path.read_bytes()), alt, width, height)


def csv_uri(table: Table) -> str:
    """The table as Table.to_csv writes it, UTF-8."""
    return data_uri("text/csv;charset=utf-8", table.to_csv().encode())


def data_uri(media_type: str, content: bytes) -> str:
    """`content` as an address that needs no server."""
    return f"data:{media_type};base64,{b64encode(content).decode('ascii')}"
