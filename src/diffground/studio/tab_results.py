"""Tab Results: the tables and figures of the last report, and where to look further."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from diffground.errors import UserError
from diffground.reproduction import paths
from diffground.studio.events import at_once
from diffground.studio.html import csv_html, note_html, part
from diffground.studio.links import PAGES, addresses, answering
from diffground.studio.models import Models

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

    at_once(tab.select, enter, chosen, [chosen, table, figures, metrics, links])
    at_once(chosen.input, _table, chosen, table)


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
    found = sorted(paths.FIGURES.glob("*.png"))
    images = [np.asarray(Image.open(path).convert("RGB")) for path in found]
    return part("report_figures", paths=found, images=images) if found else note_html(f"{paths.FIGURES}: no figure yet")


def _metrics() -> str:
    texts = {}
    for path in sorted(paths.METRICS.glob("*.json")):
        try:
            texts[path] = json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=1)
        except ValueError:
            texts[path] = "cannot be read as JSON"
    return part("report_metrics", texts=texts) if texts else note_html(f"{paths.METRICS}: no metrics yet")


def _links(models: Models) -> str:
    known = addresses(models.params.tracking.uri)
    report = REPORT if REPORT.is_file() else None
    return part("results_links", report=report, url=REPORT_URL, known=known, answered=answering(known), pages=PAGES)
