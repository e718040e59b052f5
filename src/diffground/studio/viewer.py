"""The right half of the tabs Generate and Segment: pictures with a switch for each word, opacity and threshold."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from diffground.errors import UserError
from diffground.studio.events import MODEL, at_once, queued
from diffground.studio.found import Found, write_zip
from diffground.studio.html import found_html, note_html

_SAVE = """(file) => {
  const link = document.createElement("a");
  link.href = file.url;
  link.download = "diffground.zip";
  link.click();
}"""
"""Saves a file as a click on a link does."""
_KEPT_S = 3600.0
"""How long a session's results stay on the server."""


@dataclass(frozen=True)
class Viewer:
    """Its components. `state` holds a list of Found."""

    state: gr.State
    html: gr.HTML
    shown: gr.CheckboxGroup
    opacity: gr.Slider
    threshold: gr.Slider
    download: gr.Button

    @property
    def outputs(self) -> list[Any]:
        """What `results` and `shown_results` fill."""
        return [self.state, self.html, self.shown, self.threshold, self.download]


def build_viewer(name: str, *, empty: str, threshold: float) -> Viewer:
    """name: begins the ids of the components; empty: shown before the first result; threshold: of params.yaml."""
    state = gr.State([], time_to_live=_KEPT_S)
    html = gr.HTML(note_html(empty), elem_id=f"{name}-pictures", elem_classes="dg-pictures")
    shown = gr.CheckboxGroup([], label="Shown words", elem_id=f"{name}-shown", visible=False)
    with gr.Row():
        threshold_slider = gr.Slider(
            0.01, 1.0, threshold, step=0.01, label="Threshold", elem_id=f"{name}-threshold", min_width=120
        )
        opacity = gr.Slider(0.0, 1.0, 0.55, step=0.05, label="Opacity", elem_id=f"{name}-opacity", min_width=120)
        download = gr.Button("Download ZIP", elem_id=f"{name}-zip", interactive=False, min_width=120)
    file = gr.DownloadButton("ZIP", elem_id=f"{name}-zip-file", visible="hidden")
    viewer = Viewer(state, html, shown, opacity, threshold_slider, download)
    for control in (shown, opacity, threshold_slider):
        inputs = [state, shown, threshold_slider, opacity]
        at_once(control.change, _redraw, inputs, html, trigger_mode="always_last")
    saved = at_once(download.click, _zip, [state, threshold_slider], file, show_progress="minimal")
    saved.success(None, file, js=_SAVE, queue=False, api_visibility="private")
    return viewer


def build_start(name: str, label: str) -> tuple[gr.Button, gr.Button]:
    """The buttons that start and stop the model, in a row; `name` begins their ids."""
    with gr.Row():
        start = gr.Button(label, variant="primary", elem_id=f"{name}-start")
        return start, gr.Button("Stop", elem_id=f"{name}-stop", min_width=80)


def run_model(
    buttons: tuple[gr.Button, gr.Button], field: gr.Textbox, handler: Callable[..., Any], inputs: Any, viewer: Viewer
) -> None:
    """The start button and the Enter key of `field` run the handler, whose results the viewer shows."""
    start, stop = buttons

    def event(*arguments: Any, **options: Any) -> Any:
        return gr.on([start.click, field.submit], *arguments, **options)

    options = {"show_progress": "full", "show_progress_on": viewer.html, "concurrency_limit": 2}
    running = queued(event, handler, inputs, viewer.outputs, queue=MODEL, **options)
    stop.click(None, cancels=[running], api_visibility="private")


def results(found: Sequence[Found], *, threshold: float, opacity: float) -> tuple[Any, ...]:
    """New results, with all words shown: values of Viewer.outputs."""
    words = list(dict.fromkeys(word for one in found for word in one.words))
    html = found_html(found, shown=words, threshold=threshold, opacity=opacity)
    return (
        list(found),
        html,
        gr.CheckboxGroup(choices=words, value=words, visible=bool(words)),
        gr.Slider(interactive=not all(one.is_fixed for one in found)),
        gr.Button(interactive=bool(found)),
    )


def _redraw(found: list[Found], shown: list[str], threshold: float, opacity: float) -> Any:
    return found_html(found, shown=shown, threshold=threshold, opacity=opacity) if found else gr.skip()


def _zip(found: list[Found], threshold: float) -> str:
    if not found:
        raise UserError("there is no result to download; a result is kept for an hour, so make it again")
    with tempfile.NamedTemporaryFile(prefix="diffground-", suffix=".zip", delete=False) as file:
        return str(write_zip(found, Path(file.name), threshold=threshold))
