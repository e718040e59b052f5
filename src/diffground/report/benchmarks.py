"""The tables of reports/benchmarks, which the scripts in benchmarks/ write, for the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffground.errors import UserError
from diffground.report.html import Section
from diffground.report.tables import TITLES, Row, Table

_RULER = re.compile(r"\|?(\s*:?-+:?\s*\|)+\s*(:?-+:?\s*)?")
_KNOWN: Mapping[str, Sequence[str]] = TITLES["benchmarks"]
"""Name of a benchmark -> heading and text; another one has its name as the heading."""


def benchmark_sections(folder: Path) -> list[Section]:
    """A section per Markdown file of `folder`, those of titles.yaml first; none without the folder.

    Raises: UserError for a file whose table has a row of another length than its header.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.md"))}
    names = sorted(paths, key=lambda name: list(_KNOWN).index(name) if name in _KNOWN else len(_KNOWN))
    sections = []
    for name in names:
        text, table = read_markdown(paths[name])
        heading, about = _KNOWN.get(name, (name, ""))
        said = " ".join(filter(None, [about, text]))
        sections.append(Section(heading, said, table, name=f"benchmark_{name}"))
    return sections


def read_markdown(path: Path) -> tuple[str, Table | None]:
    """The lines around the first GitHub table of a file, joined, and this table; None where there is none.

    Cells stay text. Raises: UserError for a row of another length than the header.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip().startswith("|")]
    text = " ".join(line.strip() for line in lines if line.strip() and not line.strip().startswith("|"))
    if not rows:
        return text.replace("`", ""), None
    header = _cells(rows[0][1])
    body = list[Row]()
    for number, line in rows[1:]:
        if _RULER.fullmatch(line):
            continue
        cells = _cells(line)
        if len(cells) != len(header):
            raise UserError(f"{path}: line {number} has {len(cells)} cells, the header {len(header)}; write it again")
        body.append(cells)
    return text.replace("`", ""), Table(header=header, rows=tuple(body))


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip("|").split("|"))
