"""What MLflow holds: scores of reproductions, runs of stages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffground.errors import UserError
from diffground.reproduction.config import TrackingConfig
from diffground.tracking.delivery import REPRODUCTION_TAG
from diffground.tracking.models import DVC_EXPERIMENT, STAGE
from diffground.tracking.store import Store, UnavailableError, first_line, sqlite_path, without_password


def reproduction_metrics(name: str, tracking: TrackingConfig) -> dict[str, float] | None:
    """Metrics 'stage/…' of the newest parent run with this name, or of the run with this id; None without one.

    Raises: UserError when the store is away.
    """
    runs = _search(f"tags.`{REPRODUCTION_TAG}` != ''", tracking)
    found = [run for run in runs if name in (run.info.run_id, run.info.run_name)]
    return dict(max(found, key=lambda run: run.info.start_time).data.metrics) if found else None


@dataclass(frozen=True)
class LoggedRun:
    """Where a run is to be found."""

    uri: str
    experiment_id: str
    run_id: str


def find_run(stage: str, tracking: TrackingConfig, *, since_s: float = 0.0) -> LoggedRun | None:
    """The newest run of `stage` that began at `since_s` (Unix time) or later; None without one or with tracking off.

    Raises: UserError when the store is away.
    """
    wanted = f"tags.`{STAGE}` = '{stage}' and attributes.start_time >= {int(since_s * 1000)}"
    found = _search(wanted, tracking)
    if not found:
        return None
    return _logged(max(found, key=lambda run: run.info.start_time), tracking)


def find_reproductions(experiments: Sequence[str], tracking: TrackingConfig) -> dict[str, LoggedRun]:
    """The newest parent run of each of these DVC experiments that has one.

    Raises: UserError when the store is away.
    """
    runs = sorted(_search(f"tags.`{REPRODUCTION_TAG}` != ''", tracking), key=lambda run: run.info.start_time)
    newest = {run.data.tags.get(DVC_EXPERIMENT): run for run in runs}
    return {name: _logged(newest[name], tracking) for name in experiments if name in newest}


def _logged(run: Any, tracking: TrackingConfig) -> LoggedRun:
    return LoggedRun(without_password(_uri(tracking)), run.info.experiment_id, run.info.run_id)


def _uri(tracking: TrackingConfig) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri


def _search(wanted: str, tracking: TrackingConfig) -> Sequence[Any]:
    """Runs of the experiment that match, none where there is no store yet. Raises: UserError when it is away."""
    uri = _uri(tracking)
    shown = without_password(uri)
    database = sqlite_path(uri)
    if not tracking.enabled or (database is not None and not database.is_file()):
        return []
    try:
        client = Store(uri).client()
        experiment = client.get_experiment_by_name(tracking.experiment)
        if experiment is None:
            return []
        runs: Sequence[Any] = client.search_runs([experiment.experiment_id], wanted, max_results=1000)
    except UnavailableError as error:
        raise UserError(f"tracking.uri: {shown} is away ({error}), so runs cannot be looked up there") from None
    except Exception as error:
        raise UserError(f"tracking.uri: {shown} does not answer: {first_line(error)}") from None
    return runs
