"""The tables of reports/benchmarks, which the scripts in benchmarks/ write, for the page."""

from __future__ import annotations

import re
from pathlib import Path

from diffground.errors import UserError
from diffground.report.html import Section
from diffground.report.tables import Row, Table

_RULER = re.compile(r"\|?(\s*:?-+:?\s*\|)+\s*(:?-+:?\s*)?")
HEADINGS = {
    "speed": "Speed",
    "sd15": "Cost on Stable Diffusion 1.5",
    "scale": "Scale",
    "kills": "Recovery after a kill",
    "quality": "Synthetic images left out by quality",
    "cues": "Masks without a trained module",
}
"""Name of a benchmark -> heading; another one has its name as the heading."""
TEXTS = {
    "speed": "How much time masks add to sampling an image, on one processor thread.",
    "sd15": "How much computation masks add to sampling an image with Stable Diffusion 1.5.",
    "scale": "Time and memory of writing and restarting a sharded stage, by the number of samples.",
    "kills": "Stages were killed at random times and started again; the results were compared byte for byte.",
    "quality": "Segmenters that were trained without the synthetic images whose masks are least reliable.",
    "cues": "What the two inputs that profile mini adds to the paper's module find on their own.",
}


def benchmark_sections(folder: Path) -> list[Section]:
    """A section per Markdown file of `folder`, those of HEADINGS first; none without the folder.

    Raises: UserError for a file whose table has a row of another length than its header.
    """
    paths = {path.stem: path for path in sorted(folder.glob("*.md"))}
    names = [*(name for name in HEADINGS if name in paths), *(name for name in paths if name not in HEADINGS)]
    sections = []
    for name in names:
        text, table = read_markdown(paths[name])
        said = " ".join(filter(None, [TEXTS.get(name, ""), text]))
        sections.append(Section(HEADINGS.get(name, name), said, table, name=f"benchmark_{name}"))
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
