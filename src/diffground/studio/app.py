"""The Studio as an ASGI application: the page at /, the report at /report."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from diffground import __version__
from diffground.reproduction import paths
from diffground.reproduction.config import Params
from diffground.studio.desk import Desk
from diffground.studio.guard import Guard
from diffground.studio.index import SampleIndex
from diffground.studio.models import Models
from diffground.studio.shard_sets import ShardSet
from diffground.studio.tab_data import build_data
from diffground.studio.tab_generate import build_generate
from diffground.studio.tab_results import REPORT, build_results
from diffground.studio.tab_review import build_review
from diffground.studio.tab_segment import build_segment
from diffground.studio.uploads import MAX_BYTES
from diffground.studio.verdicts import VerdictFile

STATE = Path(".studio")
"""Lists of samples and locks; it may be deleted."""
_CACHE_S = (600, 7200)
"""How often temporary files are looked at, and how old they become."""


def build_app(params: Params, models: Models, *, host: str, temporary: Path) -> Callable[..., Any]:
    """Everything that the server answers.

    host: the address that it listens on, see Guard. temporary: GRADIO_TEMP_DIR, the folder of uploads and results.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if REPORT.parent.is_dir():
        app.mount("/report", StaticFiles(directory=REPORT.parent))
    page = build_page(models, build_desks(params))
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=True,
        max_file_size=MAX_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=_theme(),
        css=_asset("page.css"),
        js=_asset("page.js"),
    )
    # Gradio checks the files that a request names only in pages that were started with launch()
    page.has_launched = True
    return Guard(app, host=host, uploads=temporary)


def build_desks(params: Params) -> dict[str, Desk]:
    """Title of a set of samples -> its list and its verdicts."""
    categories = params.vocabulary.load().categories
    sets = (
        (ShardSet("synthetic", "Synthetic", paths.SYNTHETIC, categories), paths.SYNTHETIC_REVIEWS),
        (
            ShardSet("test", "Test images", paths.GENERATED["test"], categories, oracle=paths.ORACLE["test"]),
            paths.TEST_REVIEWS,
        ),
    )
    return {
        shard_set.title: Desk(
            SampleIndex(shard_set, STATE),
            VerdictFile(folder / f"{params.profile}.csv", lock=STATE / f"{shard_set.name}-review.lock"),
        )
        for shard_set, folder in sets
    }


def build_page(models: Models, desks: dict[str, Desk]) -> gr.Blocks:
    """The five tabs."""
    profile = models.params.profile
    with gr.Blocks(title="diffground studio", analytics_enabled=False, fill_width=True, delete_cache=_CACHE_S) as page:
        gr.HTML(
            f"<h1>diffground studio</h1><span>version {__version__}, profile {profile}</span>", elem_classes="dg-head"
        )
        with gr.Tabs():
            with gr.Tab("Generate", id="generate"):
                build_generate(models)
            with gr.Tab("Segment", id="segment"):
                build_segment(models)
            with gr.Tab("Review", id="review") as review:
                build_review(desks, review)
            with gr.Tab("Data", id="data") as data:
                build_data(models, desks, data)
            with gr.Tab("Results", id="results") as results:
                build_results(models, results)
    page.queue(max_size=32, default_concurrency_limit=2)
    return page


def _theme() -> gr.themes.Base:
    """Fonts of the machine, and colours with a contrast of at least 4.5 (WCAG AA)."""
    return gr.themes.Default(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        spacing_size=gr.themes.sizes.spacing_sm,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_text_color="white",
        block_title_text_color="*neutral_700",
        block_label_text_color="*neutral_700",
        body_text_color_subdued="*neutral_600",
        input_placeholder_color="*neutral_500",
    )


def _asset(name: str) -> str:
    return (files("diffground.studio") / name).read_text(encoding="utf-8")
