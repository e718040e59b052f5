"""A contact sheet of the Protocol I test set for manual review, and next to it the CSV file to edit."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffground.atomic import write_atomically
from diffground.data.labelled import LabelledSample
from diffground.data.palette import VOC_PALETTE
from diffground.evaluation.protocol1 import quality_problem
from diffground.evaluation.review import ACCEPTED, REJECTED, Review, look_of, write_review
from diffground.report.gallery import mask_overlay
from diffground.report.html import render_template
from diffground.report.tables import GROUP_TITLES

_LARGEST_PX = 192
_JPEG_QUALITY = 82


def write_review_page(page: Path, samples: Iterable[LabelledSample], review: Review) -> Counter[str]:
    """Write `page` (one HTML file with its pictures in it) and next to it a .csv file to edit, one row per sample.

    A sample has the verdict of `review` if that is about the same image and masks, else the verdict of the automatic
    check with the reason as note. Returns the number of samples by verdict.
    """
    rows, figures = [], dict[str, list[dict[str, Any]]]()
    for sample in samples:
        verdict, note = _judge(sample, review)
        rows.append((sample.key, sample.prompt, look_of(sample), verdict, note))
        figures.setdefault(sample.group, []).append({**_figure(sample), "verdict": verdict, "note": note})
    counts = Counter(row[3] for row in rows)
    sheet = page.with_suffix(".csv")
    write_review(sheet, rows)
    text = render_template(
        "review.html.j2", figures=figures, titles=GROUP_TITLES, counts=counts, sheet=sheet.name, review=review.path
    )
    write_atomically(page, text)
    return counts


def _judge(sample: LabelledSample, review: Review) -> tuple[str, str]:
    """Verdict and note."""
    entry = review.entries.get(sample.key)
    if entry is not None and entry.problem_with(sample) is None:
        return entry.verdict, entry.note
    problem = quality_problem(sample.masks(), sample.categories)
    note = "" if problem is None else f"check: {problem}"
    if entry is not None:
        note = f"{note} (reviewed before as {entry.verdict}, but {entry.problem_with(sample)})".strip()
    return ACCEPTED if problem is None else REJECTED, note


def _figure(sample: LabelledSample) -> dict[str, Any]:
    """The values of a sample that templates/review.html.j2 shows, without its verdict."""
    masks = sample.masks()
    categories = [(name, tuple(VOC_PALETTE[i].tolist()), name in masks) for i, name in enumerate(sample.categories, 1)]
    return {
        "key": sample.key,
        "prompt": sample.prompt,
        "categories": categories,
        "picture": _picture(sample),
    }


def _picture(sample: LabelledSample) -> str:
    """The image and next to it the image with its masks, as base64 of a JPEG."""
    image, masks = sample.image(), sample.masks()
    drawn = [masks.get(category, np.zeros(image.shape[:2], dtype=bool)) for category in sample.categories]
    pair = Image.fromarray(np.concatenate([mask_overlay(image, []), mask_overlay(image, drawn)], axis=1))
    pair.thumbnail((2 * _LARGEST_PX, _LARGEST_PX))
    buffer = io.BytesIO()
    pair.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
