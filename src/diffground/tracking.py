"""MLflow tracking: a parent run a reproduction, a child run a stage. The only module that imports mlflow."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from diffground.config import Params
from diffground.errors import UserError
from diffground.params import flat_params

REPRODUCTION_TAG = "diffground.reproduction"
"""Tag of a parent run: digest of commit, DVC experiment and parameters. Stages with the same digest share a parent."""

STAGE_TAG = "diffground.stage"
"""Tag of the run of a stage: its name."""

_SQLITE = "sqlite:///"
# A batch of MLflow's logging interface holds at most this many parameters.
_MAX_PARAMS = 100
_MAX_METRICS = 1000
_MAX_PARAM_LENGTH = 6000
_STORES_WITHOUT_SCHEME = ("", "databricks", "databricks-uc")


class TrackingRun:
    """The open run of one stage; with tracking off, every method does nothing."""

    def __init__(self, *, client: Any = None, run_id: str = "") -> None:
        self._client = client
        self.run_id = run_id

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Log flat metrics, e.g. {"loss": 0.31} at an optimizer step, {"grounding/one_seen": 83.2} at the end."""
        if self._client is None or not values:
            return
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now_ms = get_current_time_millis()
        metrics = [Metric(key, float(value), now_ms, step) for key, value in values.items()]
        for start in range(0, len(metrics), _MAX_METRICS):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + _MAX_METRICS])

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log what a stage settled beyond params.yaml, e.g. the number of trained weights."""
        if self._client is not None:
            _log_params(self._client, self.run_id, values)

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copy a file, or a folder with all it holds, to the run's artifacts, below `folder` there."""
        if self._client is None:
            return
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)


@contextmanager
def start_run(stage: str, params: Params) -> Iterator[TrackingRun]:
    """Open the run of `stage` below its reproduction's parent run; close it as finished, failed or killed.

    The store is MLFLOW_TRACKING_URI, else `tracking.uri`. Raises UserError when it does not open.
    """
    if not params.tracking.enabled:
        yield TrackingRun()
        return
    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri
    client, parent_id, run_id = _open(uri, stage, params)
    status = "FAILED"
    try:
        yield TrackingRun(client=client, run_id=run_id)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        # the stage's own error, if any, says more than a lost tracking server
        with suppress(Exception) if status != "FINISHED" else _one_line(uri):
            client.set_terminated(run_id, status=status)
            client.set_terminated(parent_id, status=status)


def absolute_store(uri: str, *, root: Path) -> str:
    """`uri` of a tracking store, for use in any folder: a relative SQLite file or folder lies in `root`, an absolute
    path. Servers and absolute paths stay as they are; '' too, which names none."""
    scheme, colon, place = uri.partition(":")
    if scheme.partition("+")[0] == "sqlite" and place.startswith("///") and place not in ("///", "///:memory:"):
        return f"{scheme}:///{root / place.removeprefix('///')}"
    if scheme == "file" and not place.startswith("/"):
        return (root / unquote(place)).as_uri()
    return uri if colon or uri in _STORES_WITHOUT_SCHEME else str(root / uri)


def join_run(run_id: str, params: Params) -> TrackingRun:
    """The run that another process has open, to log to; '' is one of tracking switched off."""
    if not run_id:
        return TrackingRun()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri
    with _one_line(uri):
        return TrackingRun(client=MlflowClient(tracking_uri=uri), run_id=run_id)


def _open(uri: str, stage: str, params: Params) -> tuple[Any, str, str]:
    """Client, id of the parent run, id of the new run of `stage`."""
    with _one_line(uri):
        client = _client(uri)
        experiment_id = _experiment_id(client, uri, params)
        parent_id = _find_or_create_parent(client, experiment_id, params)
        tags = {"mlflow.parentRunId": parent_id, STAGE_TAG: stage}
        run = client.create_run(experiment_id, run_name=stage, tags=tags)
    return client, parent_id, run.info.run_id


def _client(uri: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from mlflow.tracking import MlflowClient

    # creating a store reports every migration
    for name in ("mlflow.store.db.utils", "mlflow.tracking", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _experiment_id(client: Any, uri: str, params: Params) -> str:
    """The id of `tracking.experiment`, which is created where it is not there."""
    experiment = client.get_experiment_by_name(params.tracking.experiment)
    if experiment is not None:
        return str(experiment.experiment_id)
    return str(client.create_experiment(params.tracking.experiment, artifact_location=_artifacts_beside(uri)))


def _artifacts_beside(uri: str) -> str | None:
    """Folder mlruns beside an SQLite file; MLflow alone would take one where the first stage happens to run."""
    scheme, _, file = uri.partition(_SQLITE)
    return None if scheme or not file else (Path(file).resolve().parent / "mlruns").as_uri()


def _find_or_create_parent(client: Any, experiment_id: str, params: Params) -> str:
    sections = asdict(params)
    # where it runs and where it is logged does not make another reproduction
    settings = {key: value for key, value in sections.items() if key not in ("runtime", "tracking")}
    commit = _git_commit()
    dvc_experiment = os.environ.get("DVC_EXP_NAME", "")
    identity = json.dumps([commit, dvc_experiment, settings], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    found = client.search_runs([experiment_id], f"tags.`{REPRODUCTION_TAG}` = '{digest}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {REPRODUCTION_TAG: digest, "diffground.profile": params.profile, "mlflow.source.git.commit": commit}
    if dvc_experiment:
        tags["dvc.experiment"] = dvc_experiment
    name = dvc_experiment or f"{params.profile} {commit[:8]}".strip()
    parent = client.create_run(experiment_id, run_name=name, tags=tags)
    _log_params(client, parent.info.run_id, flat_params(settings))
    return str(parent.info.run_id)


def _log_params(client: Any, run_id: str, values: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(key, str(value)[:_MAX_PARAM_LENGTH]) for key, value in values.items()]
    for start in range(0, len(entries), _MAX_PARAMS):
        client.log_batch(run_id, params=entries[start : start + _MAX_PARAMS])


def _git_commit() -> str:
    """Hash of HEAD, '' outside a git repository or before its first commit."""
    try:
        git = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # git itself is not installed
        return ""
    return git.stdout.strip() if git.returncode == 0 else ""


@contextmanager
def _one_line(uri: str) -> Iterator[None]:
    """Turn what a store throws when it is missing, locked or down into a UserError."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"tracking.uri: cannot log to {uri!r}: {reason}; start the server, "
            "change tracking.uri or MLFLOW_TRACKING_URI, or set tracking.enabled to false"
        ) from error


@dataclass(frozen=True)
class LoggedRun:
    """Where the run of a stage is to be found."""

    uri: str
    experiment_id: str
    run_id: str


def find_run(stage: str, params: Params, *, since_s: float = 0.0) -> LoggedRun | None:
    """The newest run of `stage` that started at `since_s` (Unix time) or later; None without one or with tracking off.

    Raises: UserError when the store does not open.
    """
    if not params.tracking.enabled:
        return None
    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri
    if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).is_file():
        return None  # MLflow would create it
    with _one_line(uri):
        client = _client(uri)
        experiment = client.get_experiment_by_name(params.tracking.experiment)
        if experiment is None:
            return None
        wanted = f"tags.`{STAGE_TAG}` = '{stage}' and attributes.start_time >= {int(since_s * 1000)}"
        found = client.search_runs(
            [experiment.experiment_id], wanted, max_results=1, order_by=["attributes.start_time DESC"]
        )
    return LoggedRun(uri, experiment.experiment_id, found[0].info.run_id) if found else None


def prepare_store(params: Params) -> None:
    """Create the store and the experiment where there are none: stages that start together would both do it.

    Raises: UserError when the store does not open.
    """
    if params.tracking.enabled:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri
        with _one_line(uri):
            _experiment_id(_client(uri), uri, params)
