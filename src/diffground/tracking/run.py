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
from diffground.tracking.forwarder import Forwarder
from diffground.tracking.identity import describe_reproduction, params_as_text
from diffground.tracking.journal import Session, journal_folder, num_refused
from diffground.tracking.models import BENCHMARK, COMMIT, PROFILE, SCORE, SHA256, STAGE, ModelEntry
from diffground.tracking.store import Store, import_mlflow, without_password
from diffground.tracking.system_metrics import SystemMetrics


class TrackingRun:
    """The open run of one stage; with tracking off, every method does nothing.

    Everything goes to the journal on disk, from where another thread sends it: no method waits or fails because of a
    server.
    """

    def __init__(self, *, session: Session | None = None, forwarder: Forwarder | None = None) -> None:
        self._session, self._forwarder = session, forwarder
        self._tags: dict[str, str] = {}

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Log flat metrics, e.g. {"loss": 0.31} at an optimizer step."""
        self._log_metrics(values, step=step, to="run")

    def log_results(self, values: Mapping[str, float]) -> None:
        """Log what the stage found, e.g. {"grounding/one_seen": 83.2}, here and in the run of the reproduction.

        Rounded, as in the metrics files.
        """
        for to in ("run", "parent"):
            self._log_metrics({key: round_metric(value) for key, value in values.items()}, step=0, to=to)

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log what a stage settled beyond params.yaml, e.g. the number of trained weights."""
        self._append("params", {"values": params_as_text(values)})

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copy a file, or a folder with all it holds, to the run's artifacts, below `folder` there."""
        if self._session is not None:
            self._append("artifact", {"file": self._session.keep(path), "folder": folder})

    def log_model(self, entry: ModelEntry) -> None:
        """Log a model folder and register it, unless its weights are registered already."""
        if self._session is not None:
            values = {"registered": entry.registered, "name": entry.name, "config": dict(entry.config)}
            tags = {**entry.tags, **self._tags, SHA256: entry.sha256()}
            self._append("model", {**values, "tags": tags, "file": self._session.keep(entry.folder)})

    def judge_model(
        self, entry: ModelEntry, metrics: Mapping[str, float], *, score: float | None, benchmark: str, contends: bool
    ) -> None:
        """Tag the registered version with `metrics`; it becomes champion where the rules say so.

        score: harmonic mean of seen and unseen mIoU, percent; None leaves it out of the contest, as does `contends`.
        benchmark: digest of what it was measured on.
        """
        if self._session is None:
            return
        self.log_model(entry)
        tags = {**entry.tags, **self._tags, SHA256: entry.sha256(), BENCHMARK: benchmark}
        if score is not None:
            tags[SCORE] = str(round_metric(score))
        rounded = {key: round_metric(value) for key, value in metrics.items()}
        values = {"registered": entry.registered, "tags": tags, "metrics": rounded}
        self._append("judge", {**values, "contends": contends and score is not None})

    def _log_metrics(self, values: Mapping[str, float], *, step: int, to: str) -> None:
        if values:
            self._append("metrics", {"values": {k: float(v) for k, v in values.items()}, "step": step, "to": to})

    def _append(self, op: str, values: Mapping[str, Any]) -> None:
        if self._session is not None and self._forwarder is not None:
            self._session.append(op, values)
            self._forwarder.notify()

    def _begin(self, stage: str, params: Params, uri: str) -> None:
        parent = describe_reproduction(params)
        self._tags = {key: parent["tags"].get(key, "") for key in (PROFILE, COMMIT)}
        self._append(
            "begin",
            {
                "uri": without_password(uri),
                "experiment": params.tracking.experiment,
                "stage": stage,
                "tags": {
                    **parent["tags"], STAGE: stage, "mlflow.source.name": f"stages/{stage}.py",
                },
                "params": params_as_text({"runtime": asdict(params.runtime)}),
                "parent": parent,
            },
        )  # fmt: skip
        datasets = datasets_of(stage, params)
        if datasets:
            self._append("inputs", {"datasets": datasets})


@contextmanager
def start_run(stage: str, params: Params) -> Iterator[TrackingRun]:
    """Open the run of `stage` below its reproduction's parent run; close it as finished, failed or killed.

    The store is MLFLOW_TRACKING_URI, else `tracking.uri`. While it is away, everything waits in the journal; one line
    on stderr says so at the end. Of several processes that train one model, the first alone is tracked.
    """
    if not params.tracking.enabled or not is_main_process():
        yield TrackingRun()
        return
    import_mlflow()  # here, not in the other thread: two threads that import at once may see half a module
    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri
    root = journal_folder()
    session = Session.start(root, stage)
    stores: dict[str, Store] = {}
    recorded = without_password(uri)
    forwarder = Forwarder(
        root, session, lambda wanted: stores.setdefault(wanted, store_of(wanted, uri)), uri=recorded
    )  # fmt: skip
    run = TrackingRun(session=session, forwarder=forwarder)
    run._begin(stage, params, uri)
    refused_before = num_refused(root)
    forwarder.start()
    system_metrics = SystemMetrics.begin(lambda values, step: run.log_metrics(values, step=step))
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if system_metrics is not None:
            system_metrics.finish()
        run._append("end", {"status": status})
        _warn(forwarder.finish(), recorded, root, num_refused(root) - refused_before)


def store_of(recorded: str, current: str) -> Store:
    """The store that a session was written for; with the password of `current`, where that is the same one."""
    return Store(current if without_password(current) == recorded else recorded)


def _warn(reason: str | None, uri: str, root: Path, refused: int) -> None:
    if reason is not None:
        print(
            f"warning: tracking: {uri} is away ({reason}); this run is kept in {root}, "
            "the next stage or `diffground sync` delivers it",
            file=sys.stderr,
        )
    elif refused > 0:
        print(f"warning: tracking: {uri} refused {refused} entries; see {root}/refused.jsonl", file=sys.stderr)
