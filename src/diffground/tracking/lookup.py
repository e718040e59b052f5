"""Scores of reproductions and runs of stages in MLflow; none with tracking off or without a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffground.errors import UserError
from diffground.reproduction.config import TrackingConfig
from diffground.tracking.delivery import REPRODUCTION_TAG
from diffground.tracking.models import DVC_EXPERIMENT, STAGE
from diffground.tracking.store import UnavailableError, first_line, open_client, sqlite_path, without_password

_PARENTS = f"tags.`{REPRODUCTION_TAG}` != ''"
_PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class LoggedRun:
    """The address of a run."""

    uri: str
    experiment_id: str
    run_id: str


def reproduction_metrics(name: str, tracking: TrackingConfig) -> dict[str, float] | None:
    """Metrics 'stage/…' of the newest parent run with this name, or of the run with this id; None without one.

    Raises: UserError when the store is away.
    """
    named = (run for run in _search(_PARENTS, tracking) if name in (run.info.run_id, run.info.run_name))
    return next((dict(run.data.metrics) for run in named), None)


def find_run(stage: str, tracking: TrackingConfig, *, since_s: float = 0.0) -> LoggedRun | None:
    """The newest run of `stage` that began at `since_s` (Unix time) or later; None without one.

    Raises: UserError when the store is away.
    """
    found = _search(f"tags.`{STAGE}` = '{stage}' and attributes.start_time >= {int(since_s * 1000)}", tracking)
    return _logged(found[0], tracking) if found else None


def find_stage_runs(tracking: TrackingConfig) -> list[LoggedRun]:
    """The newest run of each stage of the newest reproduction, in the order of their starts; [] without one.

    DVC experiments do not count. Raises: UserError when the store is away.
    """
    runs = _search(f"tags.`{STAGE}` != ''", tracking)
    runs = [run for run in runs if DVC_EXPERIMENT not in run.data.tags and _PARENT in run.data.tags]
    of_newest = [run for run in runs if run.data.tags[_PARENT] == runs[0].data.tags[_PARENT]]
    newest = {run.data.tags[STAGE]: run for run in reversed(of_newest)}
    return [_logged(run, tracking) for run in newest.values()]


def find_reproductions(experiments: Sequence[str], tracking: TrackingConfig) -> dict[str, LoggedRun]:
    """The newest parent run of each of these DVC experiments that has one.

    Raises: UserError when the store is away.
    """
    newest = {run.data.tags.get(DVC_EXPERIMENT): run for run in reversed(_search(_PARENTS, tracking))}
    return {name: _logged(newest[name], tracking) for name in experiments if name in newest}


def _logged(run: Any, tracking: TrackingConfig) -> LoggedRun:
    return LoggedRun(without_password(_uri(tracking)), run.info.experiment_id, run.info.run_id)


def _uri(tracking: TrackingConfig) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri


def _search(wanted: str, tracking: TrackingConfig) -> Sequence[Any]:
    """Runs of the experiment that match, the newest first. Raises: UserError when the store is away."""
    uri = _uri(tracking)
    database = sqlite_path(uri)
    if not tracking.enabled or (database is not None and not database.is_file()):
        return []
    try:
        client = open_client(uri)
        experiment = client.get_experiment_by_name(tracking.experiment)
        ids = [experiment.experiment_id] if experiment else []
        return client.search_runs(ids, wanted, max_results=1000, order_by=["start_time DESC"]) if ids else []
    except Exception as error:
        reason = str(error) if isinstance(error, UnavailableError) else f"does not answer ({first_line(error)})"
        raise UserError(f"tracking.uri: {without_password(uri)} {reason}; runs cannot be looked up there") from None
