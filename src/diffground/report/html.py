"""reports/index.html: one page without external resources, from what its sections hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diffground.report.embed import Embedded, csv_uri
from diffground.report.tables import Table, format_cell


@dataclass(frozen=True)
class Tile:
    """A headline number. score: with its spread where there is one. runs: "3 seeds" or "one run"."""

    title: str
    score: str
    runs: str
    reference: str = ""
    """What it is compared with, or its unit."""


@dataclass(frozen=True)
class Card:
    """Pictures of one image side by side, and a sentence below them."""

    pictures: Sequence[Embedded]
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Cards under a small heading."""

    heading: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """A heading and a text, followed by lines, a table, charts and galleries.

    name: of the table's CSV file.
    """

    heading: str
    text: str
    table: Table | None = None
    charts: Sequence[Embedded] = ()
    lines: Sequence[str] = ()
    galleries: Sequence[Gallery] = ()
    name: str = ""


@dataclass(frozen=True)
class Part:
    """Sections under a heading of their own; `text` says what they are."""

    heading: str
    text: str
    sections: Sequence[Section]


def render_page(
    *,
    title: str,
    summary: Sequence[str],
    tiles: Sequence[Tile],
    cards: Sequence[Card],
    parts: Sequence[Part],
    settings: Mapping[str, object],
    versions: Mapping[str, str],
) -> str:
    """The page as one HTML document; all text is escaped.

    settings: parameter -> value. versions: package -> version.
    """
    page = dict(locals())
    style, script = (Markup(_template_text(name)) for name in ("page.css", "page.js"))  # our own files
    return _environment().get_template("page.html.j2").render(page=page, style=style, script=script)


def _anchor(heading: str) -> str:
    """A heading as a part of an id of the page: letters, digits and hyphens."""
    return "-".join(re.findall(r"\w+", heading.lower()))


def _template_text(name: str) -> str:
    return files("diffground").joinpath("report/templates", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("diffground", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"format_cell": format_cell, "csv_uri": csv_uri, "anchor": _anchor}
    return environment
