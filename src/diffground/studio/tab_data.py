"""Tab Data: what the samples of a set have in common, a drawn sheet of them, and export."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from diffground.data.overlay import paint_masks
from diffground.errors import UserError
from diffground.exchange.export import FORMATS, ExportOptions, export_shards
from diffground.exchange.samples import Categories, read_categories
from diffground.studio.desk import Desk
from diffground.studio.events import EXPORT, REVIEW, at_once, queued
from diffground.studio.html import Figure, categories_html, legend, masks_of, note_html, pairs_html, part
from diffground.studio.models import Models
from diffground.studio.statistics import count_categories, count_pairs, count_samples, draw_samples

EXPORTED = Path("exported")
"""Exports are written below it, and nowhere else."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ANY = "any"
_SHEET_SIZE = 12


def build_data(models: Models, desks: Mapping[str, Desk], tab: gr.Tab) -> None:
    """The tab's components and events, in the present gr.Tab. desks: title of the set -> its desk."""
    titles = list(desks)
    sheet_number = gr.State(0)
    with gr.Row():
        chosen = gr.Dropdown(titles, value=titles[0], label="Samples", elem_id="data-set", min_width=150)
        summary = gr.HTML("", elem_id="data-summary")
    with gr.Tabs():
        with gr.Tab("Categories", id="data-categories"):
            categories = gr.HTML(note_html("Loading …"), elem_id="data-balance")
        with gr.Tab("Pairs", id="data-pairs"):
            pairs = gr.HTML("", elem_id="data-pairs-table")
        with gr.Tab("Sheet", id="data-sheet"):
            with gr.Row():
                category = gr.Dropdown([_ANY], value=_ANY, label="Category", elem_id="data-category")
                another = gr.Button("Another sheet", elem_id="data-another")
            sheet = gr.HTML("", elem_id="data-sheet-pictures", elem_classes="dg-pictures")
        with gr.Tab("Export", id="data-export"):
            _build_export(models, desks[titles[0]])

    def count(title: str, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008 - this is how Gradio passes it
        desk = desks[title]
        try:
            with desk.index.rows(progress=_say_counted(progress)) as rows:
                counted, shared, (num, quality) = count_categories(rows), count_pairs(rows), count_samples(rows)
        except UserError as error:
            return "", note_html(str(error)), "", gr.Dropdown(choices=[_ANY], value=_ANY), ""
        names = [one.name for one in counted if one.num]
        text = f'<p class="dg-card">{num:,} samples, mean quality {quality:.2f}</p>'
        drawn = _sheet(desk, None, 0)
        choices = gr.Dropdown(choices=[_ANY, *sorted(names)], value=_ANY)
        return text, categories_html(counted), pairs_html(shared, names), choices, drawn

    outputs = [summary, categories, pairs, category, sheet]
    for event in (tab.select, chosen.input):
        queued(event, count, chosen, outputs, queue=REVIEW, show_progress="minimal", show_progress_on=categories)

    def draw(title: str, name: str, number: int) -> Any:
        return _sheet(desks[title], None if name == _ANY else name, number), number + 1

    for event in (another.click, category.input):
        at_once(event, draw, [chosen, category, sheet_number], [sheet, sheet_number])


def _say_counted(progress: gr.Progress) -> Callable[[int], None]:
    def say(num: int) -> None:
        if num % 500 == 0:
            progress((num, None), desc=f"counting the samples: {num:,}", unit="samples")

    return say


def _sheet(desk: Desk, category: str | None, seed: int) -> str:
    figures = []
    with desk.index.rows() as rows:
        for number in draw_samples(rows, category, num=_SHEET_SIZE, seed=seed):
            sample = desk.index.shard_set.read(desk.index.place(rows, number))
            painted = paint_masks(sample.image(), masks_of(sample))
            alt = f"{sample.key}: {sample.prompt}, with its masks"
            figures.append(Figure(sample.key, painted, alt, legend(sample.categories)))
    return part("grid", figures=figures, kind="dg-sheet") if figures else note_html("no sample of it")


def _build_export(models: Models, desk: Desk) -> None:
    shards = desk.index.shard_set.images
    with gr.Row():
        formats = gr.CheckboxGroup(list(FORMATS), value=["coco"], label="Formats", elem_id="export-formats")
        name = gr.Textbox("dataset", label=f"Folder in {EXPORTED}/", elem_id="export-name", max_lines=1)
        split = gr.Textbox("0.8,0.1,0.1", label="Shares of train, val, test", elem_id="export-split", max_lines=1)
    with gr.Row():
        min_quality = gr.Slider(0.0, 1.0, 0.0, step=0.01, label="Quality at least", elem_id="export-quality")
        per_category = gr.Number(0, label="Images per category (0: all)", precision=0, minimum=0, elem_id="export-max")
        leave_out = gr.Checkbox(True, label="Leave out rejected samples", elem_id="export-review")
    start = gr.Button(f"Export {shards}", variant="primary", elem_id="export-start")
    report = gr.HTML("", elem_id="export-report")

    def export(
        chosen: list[str], folder: str, shares: str, quality: float, most: float, with_review: bool,
        _: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008 - this is how Gradio passes it
    ) -> str:  # fmt: skip
        if not _NAME.fullmatch(folder):
            raise UserError(
                f"the folder's name must be 1 to 64 letters, digits, dots, dashes or underscores, got '{folder[:64]}'"
            )
        categories = read_categories(shards)
        if categories is None:
            vocabulary = models.params.vocabulary.load()
            categories = Categories(names=vocabulary.categories, used=vocabulary.used)
        has_review = with_review and desk.verdicts.path.is_file()
        options = ExportOptions(
            formats=tuple(chosen),
            split=shares,
            min_quality=quality or None,
            review=desk.verdicts.path if has_review else None,
            per_category=int(most) or None,
        )
        lines = export_shards(shards, EXPORTED / folder, categories=categories, options=options)
        return "".join(note_html(line) for line in lines)

    inputs = [formats, name, split, min_quality, per_category, leave_out]
    queued(start.click, export, inputs, report, queue=EXPORT)
