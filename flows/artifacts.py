"""Artifacts of stages and ablations in Prefect's UI: metrics, a picture, links to MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffground.errors import UserError
from diffground.reproduction import paths
from diffground.reproduction.config import TrackingConfig, load_params
from diffground.reproduction.metrics import flatten, read_metrics
from diffground.tracking import comparison_page, find_reproductions, find_run, run_page
from flows.pictures import picture_uri
from flows.places import MLFLOW_UI

_DETAILS = ("per_category", "absent", "iterations", "losses")
"""Parts of metrics files that are too long for a table."""


def stage_page(stage: str, *, outputs: Sequence[Path], since_s: float) -> str:
    """Markdown about the outputs of `stage`. `outputs`: relative to the repository. `since_s`: its start, Unix time."""
    scores = shown(read_metrics(stage)) if paths.metrics_file(stage).is_file() else {}
    parts = [f"# {stage}", _tracking_line(stage, since_s=since_s), metrics_table({stage: scores})]
    try:
        uri = picture_uri(stage, tuple(outputs))
        parts.append(f"![outputs of {stage}]({uri})" if uri else "")
    except Exception as error:  # must not fail the stage, which is complete
        parts.append(f"No picture: {' '.join(str(error).split())}")
    return "\n\n".join(filter(None, parts))


def shown(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Flat metrics, without those of single categories and iterations."""
    values = flatten(metrics)
    return {key: value for key, value in values.items() if not set(key.split("/")) & set(_DETAILS)}


def metrics_table(columns: Mapping[str, Mapping[str, object]]) -> str:
    """Markdown: one row per key, one column for each of `columns`; '' without keys."""
    keys = list(dict.fromkeys(key for values in columns.values() for key in values))
    if not keys:
        return ""
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    lines += [f"| {key} | {' | '.join(_cell(values.get(key)) for values in columns.values())} |" for key in keys]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _tracking_line(stage: str, *, since_s: float) -> str:
    """The MLflow run with its store, and a link if the address of MLflow's UI is known."""
    try:
        run = find_run(stage, load_params(paths.PARAMS).tracking, since_s=since_s)
    except UserError as error:
        return f"MLflow: {error}"
    if run is None:
        return ""
    address = _ui(run.uri)
    name = f"`{run.run_id}`"
    link = f"[{name}]({address}{run_page(run)})" if address else name
    return f"MLflow run {link} in `{run.uri}`"


def compared_runs(experiments: Sequence[str], tracking: TrackingConfig) -> str:
    """Markdown: MLflow's page that compares the reproductions of these DVC experiments, and the run of each.

    A link if the address of MLflow's UI is known, else the path to append to its address. '' with tracking off.
    """
    if not tracking.enabled:
        return ""
    try:
        runs = find_reproductions(experiments, tracking)
    except UserError as error:
        return f"MLflow: {error}"
    untracked = [name for name in experiments if name not in runs]
    parts = [f"No stage had to run, so MLflow has no run: {', '.join(untracked)}."] if untracked else []
    if runs:
        uri = next(iter(runs.values())).uri
        address, page = _ui(uri), comparison_page(list(runs.values()))
        link = f"[MLflow's comparison]({address}{page})" if address else f"MLflow's comparison: `{page}`"
        rows = [f"| {name} | `{run.run_id}` |" for name, run in runs.items()]
        parts = [f"{link} in `{uri}`", "\n".join(["| | MLflow run |", "| --- | --- |", *rows]), *parts]
    return "\n\n".join(parts)


def _ui(uri: str) -> str | None:
    """Address of the UI of the store `uri`; None if unknown."""
    return uri if uri.startswith("http") else os.environ.get(MLFLOW_UI)
