"""Tab Results: the tables and figures of the last report, and where to look further."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from diffground.errors import UserError
from diffground.reproduction import paths
from diffground.studio.links import PAGES, addresses, answering
from diffground.studio.messages import with_plain_errors
from diffground.studio.models import Models
from diffground.studio.pictures import note_html, picture
from diffground.studio.tables import csv_html

REPORT = Path("reports/index.html")
REPORT_URL = "/report/index.html"
_FIRST = ("table1", "table2", "protocol1", "zs3", "real_images")
"""Tables that are offered first; the others follow by name."""


def build_results(models: Models, tab: gr.Tab) -> None:
    """The tab's components and events, in the present gr.Tab."""
    with gr.Row():
        chosen = gr.Dropdown([], label="Table", elem_id="results-choice", scale=2)
        links = gr.HTML("", elem_id="results-links")
    with gr.Tabs():
        with gr.Tab("Tables", id="results-tables"):
            table = gr.HTML(note_html("Loading …"), elem_id="results-table")
        with gr.Tab("Figures", id="results-figures"):
            figures = gr.HTML("", elem_id="results-pictures")
        with gr.Tab("Metrics", id="results-metrics"):
            metrics = gr.HTML("", elem_id="results-numbers")

    def enter(name: str | None) -> Any:
        names = _tables()
        if not names:
            reason = f"{paths.TABLES}: no table yet; `diffground reproduce` makes the report"
            return gr.Dropdown(choices=[], value=None), note_html(reason), _figures(), _metrics(), _links(models)
        first = name if name in names else names[0]
        choice = gr.Dropdown(choices=names, value=first)
        return choice, _table(first), _figures(), _metrics(), _links(models)

    light: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    tab.select(with_plain_errors(enter), chosen, [chosen, table, figures, metrics, links], **light)
    chosen.input(with_plain_errors(_table), chosen, table, **light)


def _tables() -> list[str]:
    """Names of the tables that are there."""
    found = {path.stem for path in paths.TABLES.glob("*.csv")}
    first = [name for name in _FIRST if name in found]
    return [*first, *sorted(found - set(first))]


def _table(name: str) -> str:
    if name not in _tables():
        raise UserError(f"there is no table '{name}'; choose one of the list")
    path = paths.TABLES / f"{name}.csv"
    return csv_html(str(path), path.read_text(encoding="utf-8"))


def _figures() -> str:
    shown = []
    for path in sorted(paths.FIGURES.glob("*.png")):
        image = np.asarray(Image.open(path).convert("RGB"))
        shown.append(f"<figure>{picture(image, alt=f'figure {path.stem} of the report')}"
                     f"<figcaption>{escape(str(path))}</figcaption></figure>")  # fmt: skip
    return f'<div class="dg-figures">{"".join(shown)}</div>' if shown else note_html(f"{paths.FIGURES}: no figure yet")


def _metrics() -> str:
    parts = []
    for path in sorted(paths.METRICS.glob("*.json")):
        try:
            text = json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=1)
        except ValueError:
            text = "cannot be read as JSON"
        parts.append(f"<details><summary>{escape(str(path))}</summary><pre class='dg-scroll' tabindex='0'>"
                     f"{escape(text)}</pre></details>")  # fmt: skip
    return "".join(parts) or note_html(f"{paths.METRICS}: no metrics yet")


def _links(models: Models) -> str:
    known = addresses(models.params.tracking.uri)
    answered = answering(known)
    lines = []
    if REPORT.is_file():
        lines.append(f'<a href="{REPORT_URL}" target="_blank" rel="noopener">{REPORT}</a>')
    for name, address in known.items():
        if name in answered:
            lines.append(f'<a href="{escape(address + PAGES[name])}" target="_blank" rel="noopener">{name}</a>')
        else:
            lines.append(f"{name}: no answer at {escape(address)}; python -m flows up starts it")
    return f'<ul class="dg-links">{"".join(f"<li>{line}</li>" for line in lines)}</ul>'
