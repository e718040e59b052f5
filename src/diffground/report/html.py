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
    """A headline number. score: with its spread where there is one. runs: "3 seeds" or "one run". beside: reference."""

    title: str
    score: str
    runs: str
    beside: str = ""


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

    @property
    def anchor(self) -> str:
        """The heading as an id of the page: letters, digits and hyphens."""
        return "s-" + "-".join(re.findall(r"\w+", self.heading.lower()))


@dataclass(frozen=True)
class Part:
    """Sections under a heading of their own; `text` says what they are."""

    heading: str
    text: str
    sections: Sequence[Section]

    @property
    def anchor(self) -> str:
        return "p-" + "-".join(re.findall(r"\w+", self.heading.lower()))


@dataclass(frozen=True)
class Page:
    """All that the page shows. settings: parameter -> value. versions: package -> version."""

    title: str
    summary: Sequence[str]
    tiles: Sequence[Tile]
    cards: Sequence[Card]
    parts: Sequence[Part]
    settings: Mapping[str, object]
    versions: Mapping[str, str]


def render_page(page: Page) -> str:
    """The page as one HTML document; all text is escaped."""
    style, script = (Markup(_template_text(name)) for name in ("page.css", "page.js"))  # our own files
    return _environment().get_template("page.html.j2").render(page=page, style=style, script=script)


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
    environment.filters["format_cell"] = format_cell
    environment.filters["csv_uri"] = csv_uri
    return environment
