"""reports/index.html: every table and picture of a reproduction on one page, without scripts or external resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diffground.report.tables import Table, format_cell


@dataclass(frozen=True)
class Section:
    """A heading and a text, followed by lines, a table and pictures (paths relative to the page)."""

    heading: str
    text: str
    table: Table | None = None
    figures: Sequence[str] = ()
    lines: Sequence[str] = ()


def render_page(*, title: str, sections: Sequence[Section], settings: Mapping[str, object]) -> str:
    """The page as one HTML document; `settings` (parameter -> value) are listed at its end."""
    return render_template("page.html.j2", title=title, sections=sections, settings=settings)


def render_template(name: str, **values: object) -> str:
    """The text of templates/NAME with these values, escaped."""
    return _environment().get_template(name).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("diffground", "report/templates"),
        autoescape=True,
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["format_cell"] = format_cell
    return environment


def _escaped(value: object) -> Markup:
    """Quotes as html.escape writes them (&#x27;), not as markupsafe does (&#39;): recorded pages keep their bytes."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))
