"""Tables as HTML of the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from diffground.studio.statistics import SIZE_TITLES, CategoryCounts


def table_html(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    is_html: bool = False,
    is_upright: bool = False,
) -> str:
    """The first column names the rows. is_html: cells are HTML already, apart from the first one. is_upright: the
    header is written upwards, for many narrow columns."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' if cell else "<td></td>" for cell in header)
    kind = "dg-table dg-upright" if is_upright else "dg-table"
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{cell if is_html else escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    table = f'<table class="{kind}"><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
    # it can be scrolled with the keyboard only where it can have the focus
    region = f'<div class="dg-scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
    return f"{region}{table}<tbody>{body}</tbody></table></div>"


def categories_html(counts: Sequence[CategoryCounts]) -> str:
    """Class balance and mask sizes."""
    most = max((one.num for one in counts), default=1) or 1
    rows = [
        (
            one.name,
            f"{one.num:,}",
            f'<span class="dg-bar" style="width: {90 * one.num / most:.0f}px"></span>',
            f"{one.missing:,}",
            *(f"{num:,}" for num in one.sizes),
        )
        for one in counts
    ]
    header = ("category", "images", "balance", "not found", *SIZE_TITLES)
    return table_html("Images per category, and how much of the image the masks cover", header, rows, is_html=True)


def pairs_html(pairs: Mapping[tuple[str, str], int], names: Sequence[str]) -> str:
    """Co-occurrence: how many images two categories share."""
    most = max(pairs.values(), default=1)
    shown = sorted(names)

    def cell(first: str, second: str) -> str:
        num = pairs.get((first, second), pairs.get((second, first), 0))
        # a light background only: the number stays readable in the dark theme too
        shade = f' style="background: rgba(59, 111, 182, {0.3 * num / most:.2f})"' if num else ""
        return f"<span{shade}>{num or '·'}</span>"

    rows = [(first, *(cell(first, second) for second in shown)) for first in shown]
    return table_html("Images that two categories share", ("", *shown), rows, is_html=True, is_upright=True)


def csv_html(caption: str, text: str) -> str:
    """A CSV file with a header."""
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    return table_html(caption, rows[0], rows[1:]) if rows else ""
