"""Pieces of HTML of the page: the macros of parts.html.j2."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from diffground.data.labelled import LabelledSample
from diffground.data.overlay import paint_masks
from diffground.data.palette import VOC_PALETTE
from diffground.report.embed import data_uri
from diffground.studio.found import Found
from diffground.studio.statistics import SIZE_TITLES, CategoryCounts

_DECIMAL = re.compile(r"-?\d+\.\d+")
_JPEG_FROM_PX = 256
"""Larger pictures are sent as JPEG: they are many times smaller, and nothing is measured on them."""


@dataclass(frozen=True)
class Entry:
    """A coloured square and a word."""

    text: str
    colour: tuple[int, int, int]
    faint: bool


@dataclass(frozen=True)
class Figure:
    """An image, uint8 (H, W, 3), with its legend. alt: what it shows, for those who do not see it."""

    title: str
    image: np.ndarray
    alt: str
    legend: Sequence[Entry]


def part(name: str, **values: Any) -> str:
    """The macro `name` with these values; all text is escaped."""
    return str(getattr(_template().module, name)(**values)).strip()


def note_html(text: str) -> str:
    """A line in place of pictures."""
    return part("note", text=text)


def legend(
    words: Sequence[str], masks: np.ndarray | None = None, *, shown: Collection[str] | None = None
) -> list[Entry]:
    """One entry per word, faint where it is not in `shown`; with masks, bool (Q, H, W), also its share of the image."""
    return [
        Entry(
            word if masks is None else f"{word} {masks[i].mean():.1%}" if masks[i].any() else f"{word}: not found",
            tuple(VOC_PALETTE[(i + 1) % len(VOC_PALETTE)].tolist()),
            shown is not None and word not in shown,
        )
        for i, word in enumerate(words)
    ]


def masks_of(sample: LabelledSample) -> np.ndarray:
    """bool (Q, H, W): the mask of each category that the prompt names, without a pixel where it has none."""
    masks, empty = sample.masks(), np.zeros(sample.image().shape[:2], dtype=bool)
    return np.stack([masks.get(name, empty) for name in sample.categories])


def found_html(found: Sequence[Found], *, shown: Collection[str], threshold: float, opacity: float) -> str:
    """The images with the masks of the words in `shown`, each with its legend."""
    figures = []
    for one in found:
        masks = one.masks(threshold)
        is_shown = np.array([word in shown for word in one.words])
        painted = paint_masks(one.image, masks & is_shown[:, None, None], opacity=opacity)
        visible = [word for word in one.words if word in shown]
        alt = f"{one.title}, with the masks of {', '.join(visible)}" if visible else one.title
        figures.append(Figure(one.title, painted, alt, legend(one.words, masks, shown=shown)))
    return part("grid", figures=figures, kind=f"dg-grid-{min(len(found), 4)}")


def categories_html(counts: Sequence[CategoryCounts]) -> str:
    """Class balance and mask sizes."""
    return part("categories", counts=counts, header=("category", "images", "balance", "not found", *SIZE_TITLES))


def pairs_html(pairs: Mapping[tuple[str, str], int], names: Sequence[str]) -> str:
    """Co-occurrence: how many images two categories share."""
    names = sorted(names)
    shared = [[pairs.get((a, b), pairs.get((b, a), 0)) for b in names] for a in names]
    return part("pairs", names=names, shared=shared, most=max(pairs.values(), default=1))


def csv_html(caption: str, text: str) -> str:
    """A CSV file with a header; numbers with decimals are shown with one, as in the report."""
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    shown = [[f"{float(cell):.1f}" if _DECIMAL.fullmatch(cell) else cell for cell in row] for row in rows[1:]]
    return part("table", caption=caption, header=rows[0], rows=shown) if rows else ""


def _picture_uri(image: np.ndarray) -> str:
    """uint8 (H, W, 3) -> its content as an address."""
    kind = "png" if max(image.shape[:2]) < _JPEG_FROM_PX else "jpeg"
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, quality=92)
    return data_uri(f"image/{kind}", buffer.getvalue())


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("diffground", "studio"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture_uri"] = _picture_uri
    return environment.get_template("parts.html.j2")
