"""The run of one stage, below the run of its reproduction."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffground.reproduction.config import Params
from diffground.reproduction.metrics import round_metric
from diffground.runtime.rank import is_main_process
from diffground.tracking.datasets import datasets_of
from diffground.tracking.identity import describe_reproduction, params_as_text
from diffground.tracking.journal import Session, journal_folder, num_refused
from diffground.tracking.models import BENCHMARK, COMMIT, PROFILE, SCORE, SHA256, STAGE, ModelEntry
from diffground.tracking.store import import_mlflow, without_password
from diffground.tracking.sync import BackgroundSync
from diffground.tracking.system_metrics import system_metrics


class TrackingRun:
    """The open run of one stage; with tracking off, every method does nothing.

    Everything goes to the journal on disk, from where another thread sends it: no method waits or fails because of a
    server.
    """

    def __init__(self, session: Session | None = None) -> None:
        self._session = session
        self._tags: dict[str, str] = {}

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Log flat metrics, e.g. {"loss": 0.31} at an optimizer step."""
        self._log_metrics(values, step=step, to=["run"])

    def log_results(self, values: Mapping[str, float]) -> None:
        """Log what the stage found, e.g. {"grounding/one_seen": 83.2}, here and in the run of the reproduction.

        Rounded, as in the metrics files.
        """
        self._log_metrics(_rounded(values), step=0, to=["run", "parent"])

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log what a stage settled beyond params.yaml, e.g. the number of trained weights."""
        self._append("params", params=params_as_text(values))

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copy a file, or a folder with all it holds, to the run's artifacts, below `folder` there."""
        if self._session is not None:
            self._append("artifact", file=self._session.keep(path), folder=folder)

    def log_model(self, entry: ModelEntry) -> None:
        """Log a model folder and register it, unless its weights are registered already."""
        self._log_model(entry, {}, contends=False)

    def judge_model(
        self, entry: ModelEntry, metrics: Mapping[str, float], *, score: float | None, benchmark: str, contends: bool
    ) -> None:
        """As `log_model`, and tag the version with `metrics`; it becomes champion where the rules say so.

        score: harmonic mean of seen and unseen mIoU, percent; None leaves it out of the contest, as does `contends`.
        benchmark: digest of what it was measured on.
        """
        verdict = {key: str(value) for key, value in _rounded(metrics).items()} | {BENCHMARK: benchmark}
        if score is not None:
            verdict[SCORE] = str(round_metric(score))
        self._log_model(entry, verdict, contends=contends and score is not None)

    def _log_model(self, entry: ModelEntry, verdict: dict[str, str], *, contends: bool) -> None:
        if self._session is not None:
            self._append(
                "model",
                registered=entry.registered,
                name=entry.name,
                config=dict(entry.config),
                tags={**entry.tags, **self._tags, SHA256: entry.sha256()},
                verdict=verdict,
                contends=contends,
                file=self._session.keep(entry.folder),
            )

    def _log_metrics(self, values: Mapping[str, float], *, step: int, to: list[str]) -> None:
        if values:
            self._append("metrics", metrics={key: float(value) for key, value in values.items()}, step=step, to=to)

    def _append(self, op: str, **values: Any) -> None:
        if self._session is not None:
            self._session.append(op, **values)

    def _begin(self, stage: str, params: Params, uri: str) -> None:
        parent = describe_reproduction(params)
        self._tags = {key: parent["tags"].get(key, "") for key in (PROFILE, COMMIT)}
        run = {
            "name": stage,
            "tags": {**parent["tags"], STAGE: stage, "mlflow.source.name": f"stages/{stage}.py"},
            "params": params_as_text({"runtime": asdict(params.runtime)}),
        }
        self._append("begin", uri=uri, experiment=params.tracking.experiment, parent=parent, run=run)
        datasets = datasets_of(stage, params)
        if datasets:
            self._append("inputs", datasets=datasets)


@contextmanager
def start_run(stage: str, params: Params) -> Iterator[TrackingRun]:
    """Open the run of `stage` below its reproduction's parent run; close it as finished, failed or killed.

    The store is MLFLOW_TRACKING_URI, else `tracking.uri`. While it is away, everything waits in the journal; one line
    on stderr says so at the end. Of several processes that train one model, only the first is tracked.
    """
    if not params.tracking.enabled or not is_main_process():
        yield TrackingRun()
        return
    import_mlflow()  # here, not in the other thread: two threads that import at once may see half a module
    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri
    recorded, root = without_password(uri), journal_folder()
    session = Session.start(root, stage)
    run = TrackingRun(session)
    run._begin(stage, params, recorded)
    refused_before = num_refused(root)
    sync = BackgroundSync(root, session, uri)
    sync.start()
    status = "FAILED"
    try:
        with system_metrics(run.log_metrics):
            yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run._append("end", status=status)
        reason, refused = sync.finish(), num_refused(root) - refused_before
        if reason is not None:
            _warn(f"{recorded} {reason}; this run is kept in {root}, the next stage or `diffground sync` delivers it")
        elif refused > 0:
            _warn(f"{recorded} refused {refused} entries; see {root}/refused.jsonl")


def _warn(message: str) -> None:
    print(f"warning: tracking: {message}", file=sys.stderr)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: round_metric(value) for key, value in values.items()}
