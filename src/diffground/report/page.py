"""reports/index.html of a reproduction: its sections, in order, without those that have nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffground.report.experiments import WITHOUT_EFFECT, Experiments
from diffground.report.html import Section, render_page
from diffground.report.tables import Table, read_packaged_yaml
from diffground.reproduction.config import Params
from diffground.reproduction.params import flat_params


def read_sections() -> list[dict[str, Any]]:
    """All sections that a page may have: heading, text, and optionally table, figure (names), experiments (globs)."""
    return read_packaged_yaml("report/templates/sections.yaml")


def write_page(
    path: Path,
    *,
    tables: Mapping[str, Table],
    figures: Sequence[Path],
    params: Params,
    experiments: Experiments,
    trends: Sequence[str],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write the page at `path`, with the parameters that shape results; the figures are linked relative to it.

    trends: one sentence each. notes: name of a figure or table -> what to add to the text of its section.
    """
    links = {figure.stem: figure.relative_to(path.parent).as_posix() for figure in figures}
    here = f"Here: {experiments.setup.describe()}."
    sections = []
    for section in read_sections():
        table, figure = section.get("table", ""), section.get("figure", "")
        if table in tables or figure in links:
            added = (notes or {}).get(figure or table, "")
            text = _joined(section["text"], added, here, experiments.note(section.get("experiments", ())))
            shown = [links[figure]] if figure in links else []
            sections.append(Section(section["heading"], text, tables.get(table), shown))
    found = _joined(here, experiments.note(["*"]))
    if trends:
        sections.insert(-1, Section("Trends of the paper, and whether they hold here", found, lines=trends))
    if experiments.left_out:
        text = f"Run with other settings than the default run ({experiments.setup.describe()}), so in no table:"
        sections.insert(-1, Section("Experiments that are left out", text, lines=experiments.left_out))
    settings = flat_params(
        {name: values for name, values in asdict(params).items() if name not in {"profile", *WITHOUT_EFFECT}}
    )
    page = render_page(title=f"diffground: profile {params.profile}", sections=sections, settings=settings)
    path.write_text(page, encoding="utf-8")


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
