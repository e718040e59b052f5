"""A contact sheet of the Protocol I test set for a person to look through, and the CSV file to edit beside it."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from diffground.atomic import write_atomically
from diffground.data.labelled import LabelledSample
from diffground.data.palette import VOC_PALETTE
from diffground.evaluation.protocol1 import quality_problem
from diffground.evaluation.review import ACCEPTED, REJECTED, Review, look_of, write_review
from diffground.report.gallery import mask_overlay
from diffground.report.tables import GROUP_TITLES

_LARGEST_PX = 192
_JPEG_QUALITY = 82
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .8rem; }
figure { margin: 0; padding: .5rem; border: 2px solid #7a7; border-radius: 4px; }
figure.rejected { border-color: #c66; background: #fdf3f3; }
img { width: 100%; display: block; image-rendering: auto; }
code { font-weight: bold; } .verdict { float: right; } .rejected .verdict { color: #a22; }
"""


@dataclass(frozen=True)
class Judged:
    """A verdict with its reason."""

    verdict: str
    note: str


def write_review_page(page: Path, samples: Iterable[LabelledSample], review: Review) -> Counter[str]:
    """Write `page` (one HTML file with its pictures in it) and beside it, as .csv, a row a sample to edit.

    A sample's verdict is the one of `review` where that has one of this very image; else the automatic check's, with
    its reason as note. Returns the number of samples by verdict.
    """
    rows, figures = [], dict[str, list[str]]()
    for sample in samples:
        judged = _judge(sample, review)
        rows.append((sample.key, sample.prompt, look_of(sample), judged.verdict, judged.note))
        figures.setdefault(sample.group, []).append(_figure(sample, judged))
    counts = Counter(row[3] for row in rows)
    sheet = page.with_suffix(".csv")
    write_review(sheet, rows)
    write_atomically(page, _render(figures, counts, sheet=sheet, review=review.path))
    return counts


def _judge(sample: LabelledSample, review: Review) -> Judged:
    entry = review.entries.get(sample.key)
    if entry is not None and entry.problem_with(sample) is None:
        return Judged(entry.verdict, entry.note)
    problem = quality_problem(sample.masks(), sample.categories)
    note = "" if problem is None else f"check: {problem}"
    if entry is not None:
        note = f"{note} (reviewed before as {entry.verdict}, but {entry.problem_with(sample)})".strip()
    return Judged(ACCEPTED if problem is None else REJECTED, note)


def _figure(sample: LabelledSample, judged: Judged) -> str:
    masks = sample.masks()
    names = ", ".join(
        f'<b style="color: rgb{tuple(VOC_PALETTE[i + 1].tolist())}">{escape(category)}</b>'
        + ("" if category in masks else " (not found)")
        for i, category in enumerate(sample.categories)
    )
    return (
        f'<figure class="{judged.verdict}" id="{escape(sample.key)}"><img loading="lazy" alt="{escape(sample.prompt)}" '
        f'src="data:image/jpeg;base64,{_picture(sample)}"><figcaption><span class="verdict">{judged.verdict}</span>'
        f"<code>{escape(sample.key)}</code><br>{escape(sample.prompt)}<br>{names}<br>{escape(judged.note)}"
        "</figcaption></figure>"
    )


def _picture(sample: LabelledSample) -> str:
    """The image, and beside it the image with its masks, as base64 of a JPEG."""
    image, masks = sample.image(), sample.masks()
    drawn = [masks.get(category, np.zeros(image.shape[:2], dtype=bool)) for category in sample.categories]
    pair = Image.fromarray(np.concatenate([mask_overlay(image, []), mask_overlay(image, drawn)], axis=1))
    pair.thumbnail((2 * _LARGEST_PX, _LARGEST_PX))
    buffer = io.BytesIO()
    pair.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def _render(figures: dict[str, list[str]], counts: Counter[str], *, sheet: Path, review: Path) -> str:
    told = (
        f"{counts[ACCEPTED]} samples accepted, {counts[REJECTED]} rejected. Each is shown without and with the "
        f"oracle's masks; the frame has the verdict of {review} or else of the automatic check. A sample is good when "
        "the image shows what the prompt says and each mask covers its category and nothing else."
    )
    how = (
        f"To review: edit the verdicts (accepted, rejected) in {sheet.name}, leave out rows at will, and save it as "
        f"{review}. The columns prompt and look say which image was judged: leave them as they are."
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Review of the Protocol I test set</title>',
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Review of the Protocol I test set</h1>",
        f"<p>{escape(told)}</p><p>{escape(how)}</p>",
    ]
    for group, title in GROUP_TITLES.items():
        if group in figures:
            parts.append(f'<h2>{escape(title)} ({len(figures[group])})</h2><div class="sheet">')
            parts += [*figures[group], "</div>"]
    return "\n".join([*parts, "</body></html>"]) + "\n"
