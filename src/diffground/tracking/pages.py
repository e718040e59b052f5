"""Pages of MLflow's UI: a run, and the runs of a reproduction side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from diffground.reproduction.config import TrackingConfig
from diffground.tracking.lookup import LoggedRun, find_stage_runs

ALL_EXPERIMENTS = "/#/experiments"
"""MLflow 3 opens a page about language models instead."""


def run_page(run: LoggedRun) -> str:
    """Path of the page of one run, to append to the address of MLflow's UI."""
    return f"{ALL_EXPERIMENTS}/{run.experiment_id}/runs/{run.run_id}"


def comparison_page(runs: Sequence[LoggedRun]) -> str:
    """Path of the page that shows `runs` side by side, in this order."""
    of_all = {"runs": [run.run_id for run in runs], "experiments": sorted({run.experiment_id for run in runs})}
    query = urlencode({key: json.dumps(ids, separators=(",", ":")) for key, ids in of_all.items()}, quote_via=quote)
    return f"/#/compare-runs?{query}"


def newest_page(tracking: TrackingConfig) -> str:
    """Path of the page that compares the stages of the newest reproduction; that of all experiments without one.

    Raises: UserError when the store is away.
    """
    runs = find_stage_runs(tracking)
    return comparison_page(runs) if runs else ALL_EXPERIMENTS
