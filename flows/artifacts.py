"""What a stage leaves in Prefect's UI: its metrics, a picture, its MLflow run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffground import paths
from diffground.config import load_params
from diffground.errors import UserError
from diffground.report.metrics import flatten, read_metrics
from diffground.tracking import find_run
from flows.pictures import picture_uri
from flows.places import MLFLOW_UI

_DETAILS = ("per_category", "absent", "iterations", "losses")
"""Parts of metrics files that are too long for a table."""


def stage_page(stage: str, *, outputs: Sequence[Path], since_s: float) -> str:
    """Markdown about what `stage` made. `outputs`: relative to the repository. `since_s`: its start, Unix time."""
    parts = [f"# {stage}", _tracking_line(stage, since_s=since_s), metrics_table({stage: scores(stage)})]
    try:
        uri = picture_uri(stage, tuple(outputs))
        parts.append(f"![what {stage} made]({uri})" if uri else "")
    except Exception as error:  # the stage is done; a picture that cannot be drawn is no reason to fail it
        parts.append(f"No picture: {' '.join(str(error).split())}")
    return "\n\n".join(filter(None, parts))


def scores(stage: str) -> dict[str, float]:
    """The metrics of the stage that a table shows; none where it writes none."""
    return shown(read_metrics(stage)) if paths.metrics_file(stage).is_file() else {}


def shown(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Flat metrics, without those of single categories and iterations."""
    values = flatten(metrics)
    return {key: value for key, value in values.items() if not set(key.split("/")) & set(_DETAILS)}


def metrics_table(columns: Mapping[str, Mapping[str, object]]) -> str:
    """Markdown: a row a key, a column for each of `columns`; '' where there is no key."""
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
    """The MLflow run with its store, and a link where MLflow's UI is known to run."""
    try:
        run = find_run(stage, load_params(paths.PARAMS).tracking, since_s=since_s)
    except UserError as error:
        return f"MLflow: {error}"
    if run is None:
        return ""
    ui = os.environ.get(MLFLOW_UI)
    address = run.uri if run.uri.startswith("http") else ui
    name = f"`{run.run_id}`"
    link = f"[{name}]({address}/#/experiments/{run.experiment_id}/runs/{run.run_id})" if address else name
    return f"MLflow run {link} in `{run.uri}`"
