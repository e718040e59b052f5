"""reports/index.html: every table and picture of a reproduction on one page, without scripts or outside resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from diffground.report.tables import Table, format_cell

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
.text { text-align: left; }
img { max-width: 100%; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0 1rem; font-size: 13px; }
dt { font-family: monospace; } dd { margin: 0; }
"""


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, and below them a list of lines, a table, pictures (paths relative to the page)."""

    heading: str
    text: str
    table: Table | None = None
    figures: Sequence[str] = ()
    lines: Sequence[str] = ()


def render_page(*, title: str, sections: Sequence[Section], settings: Mapping[str, object]) -> str:
    """The page as one HTML document; `settings` (parameter -> value) are listed at its end."""
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *(_render_section(section) for section in sections),
        "<h2>Parameters</h2><dl>",
        *(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in settings.items()),
        "</dl></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _render_section(section: Section) -> str:
    parts = [f"<h2>{escape(section.heading)}</h2>", f"<p>{escape(section.text)}</p>"]
    if section.lines:
        parts.append(f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in section.lines)}</ul>")
    if section.table is not None:
        parts.append(_render_table(section.table))
    parts += [f'<p><img src="{escape(figure)}" alt="{escape(section.heading)}"></p>' for figure in section.figures]
    return "\n".join(parts)


def _render_table(table: Table) -> str:
    header = _render_row("th", table.header, table.text_columns)
    rows = "".join(_render_row("td", row, table.text_columns) for row in table.rows)
    return f"<table><thead>\n{header}</thead><tbody>\n{rows}</tbody></table>"


def _render_row(tag: str, cells: Sequence[str | float | None], text_columns: Sequence[bool]) -> str:
    begins = [f'<{tag} class="text">' if is_text else f"<{tag}>" for is_text in text_columns]
    inner = "".join(f"{begin}{escape(format_cell(cell))}</{tag}>" for begin, cell in zip(begins, cells, strict=True))
    return f"<tr>{inner}</tr>\n"
