"""reports/index.html of a reproduction: its sections, in order, without those that have nothing to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffground.atomic import write_atomically
from diffground.report.embed import embed_chart
from diffground.report.experiments import WITHOUT_EFFECT, Experiments
from diffground.report.headline import headline
from diffground.report.html import Card, Gallery, Part, Section, render_page
from diffground.report.tables import TITLES, Table, read_packaged_yaml
from diffground.reproduction.config import Params
from diffground.reproduction.params import flat_params

_PARTS: Mapping[str, tuple[str, str]] = TITLES["parts"]
"""Value of `part` in sections.yaml -> heading and text."""
_LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")


def read_sections() -> list[dict[str, Any]]:
    """All sections that a page may have: part, heading, text, and optionally table, figure, alt, gallery (names),
    experiments (globs)."""
    return read_packaged_yaml("report/templates/sections.yaml")


def write_page(
    path: Path,
    *,
    metrics: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, Table],
    figures: Sequence[Path],
    params: Params,
    experiments: Experiments,
    notes: Mapping[str, str] | None = None,
    galleries: Mapping[str, Sequence[Gallery]] | None = None,
    cards: Sequence[Card] = (),
    benchmarks: Sequence[Section] = (),
) -> None:
    """Write the page at `path`, with the parameters that shape results; pictures and tables are embedded in it.

    notes: name of a figure, table or gallery -> what to add to the text of its section.
    galleries: by name. cards: pictures of the first screen.
    """
    charts = {figure.stem: figure for figure in figures}
    here = f"Here: {experiments.setup.describe()}."
    shown: dict[str, list[Section]] = {part: [] for part in _PARTS}
    for section in read_sections():
        table, figure, gallery = (section.get(key, "") for key in ("table", "figure", "gallery"))
        if not (table in tables or figure in charts or (galleries or {}).get(gallery)):
            continue
        said = (here, experiments.note(section.get("experiments", ())))
        added = (notes or {}).get(gallery or figure or table, "")
        shown[section["part"]].append(
            Section(
                section["heading"],
                _joined(section["text"], added, *(said if "experiments" in section else ())),
                tables.get(table),
                [embed_chart(charts[figure], section["alt"])] if figure in charts else [],
                galleries=(galleries or {}).get(gallery, ()),
                name=table,
            )
        )
    if experiments.left_out:
        text = f"Run with other settings than the default run ({experiments.setup.describe()}), so in no table:"
        shown["details"].append(Section("Experiments that are left out", text, lines=experiments.left_out))
    shown["benchmarks"] += benchmarks
    vocabulary = params.vocabulary.load()
    about = {
        "setup": experiments.setup.describe(),
        "num_seen": len(vocabulary.seen),
        "num_unseen": len(vocabulary.unseen),
        "unseen": ", ".join(vocabulary.unseen),
    }
    text = render_page(
        title=f"diffground: profile {params.profile}",
        summary=[sentence.format(**about) for sentence in TITLES["summary"]],
        tiles=headline(metrics, tables),
        cards=cards,
        parts=[Part(*_PARTS[name], shown[name]) for name in shown if shown[name]],
        settings=flat_params(
            {name: values for name, values in asdict(params).items() if name not in {"profile", *WITHOUT_EFFECT}}
        ),
        versions={name: version(name) for name in _LIBRARIES},
    )
    write_atomically(path, text)


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))
