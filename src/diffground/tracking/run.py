"""The run of one stage, below the run of its reproduction."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from diffground.reproduction.config import Params
from diffground.reproduction.metrics import round_metric
from diffground.runtime.fingerprint import checkpoint_fingerprint
from diffground.runtime.rank import is_main_process
from diffground.tracking.datasets import datasets_of
from diffground.tracking.identity import describe_reproduction, describe_stage
from diffground.tracking.journal import Session, journal_folder, num_refused
from diffground.tracking.models import BENCHMARK, SCORE, SHA256, ModelEntry
from diffground.tracking.store import first_line, import_mlflow, without_password
from diffground.tracking.sync import BackgroundSync

logger = logging.getLogger(__name__)


class TrackingRun:
    """The open run of one stage; with tracking off, every method does nothing.

    Everything goes to the journal on disk, from where another thread sends it: no method waits or fails because of a
    server.
    """

    def __init__(self, session: Session | None = None) -> None:
        self._session = session

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0, to: Sequence[str] = ("run",)) -> None:
        """Log flat metrics, e.g. {"loss": 0.31} at an optimizer step, to "run", "parent" or both."""
        if values and self._session is not None:
            metrics = {key: float(value) for key, value in values.items()}
            self._session.append("metrics", metrics=metrics, step=step, to=to)

    def log_results(self, values: Mapping[str, float]) -> None:
        """Log what the stage found, e.g. {"grounding/one_seen": 83.2}, here and in the run of the reproduction.

        Rounded, as in the metrics files.
        """
        self.log_metrics(_rounded(values), to=("run", "parent"))

    def log_artifact(self, path: Path, *, folder: str | None = None) -> None:
        """Copy a file, or a folder with its content, to the run's artifacts, below `folder` there."""
        if self._session is not None:
            self._session.append("artifact", file=self._session.keep(path), folder=folder)

    def log_model(
        self,
        entry: ModelEntry,
        *,
        metrics: Mapping[str, float] | None = None,
        score: float | None = None,
        benchmark: str | None = None,
        contends: bool = False,
    ) -> None:
        """Log a model folder and register it, unless its weights are registered already.

        metrics: of its evaluation; they become tags of the version.
        score: harmonic mean of seen and unseen mIoU, percent.
        benchmark: digest of what the score was measured on.
        contends: whether it becomes champion where the rules of champion.py say so; never without a score.
        """
        if self._session is None:
            return
        verdict = {key: str(value) for key, value in _rounded(metrics or {}).items()}
        if benchmark is not None:
            verdict[BENCHMARK] = benchmark
        if score is not None:
            verdict[SCORE] = str(round_metric(score))
        self._session.append(
            "model",
            registered=entry.registered,
            name=entry.name,
            config=dict(entry.config),
            tags={**entry.tags, SHA256: checkpoint_fingerprint(entry.folder)},
            verdict=verdict,
            contends=contends and score is not None,
            file=self._session.keep(entry.folder),
        )


@contextmanager
def start_run(stage: str, params: Params) -> Iterator[TrackingRun]:
    """Open the run of `stage` below its reproduction's parent run; close it as finished, failed or killed.

    The store is MLFLOW_TRACKING_URI, else `tracking.uri`. While it is away, everything waits in the journal, and a
    warning says so at the end. Of several processes that train one model, only the first is tracked.
    """
    if not params.tracking.enabled or not is_main_process():
        yield TrackingRun()
        return
    import_mlflow()  # here, not in the other thread: two threads that import at once may see half a module
    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri
    recorded, root = without_password(uri), journal_folder()
    session = Session.start(root, stage)
    run = TrackingRun(session)
    parent = describe_reproduction(params)
    of_stage = describe_stage(stage, params, parent)
    session.append("begin", uri=recorded, experiment=params.tracking.experiment, parent=parent, run=of_stage)
    datasets = datasets_of(stage, params)
    if datasets:
        session.append("inputs", datasets=datasets)
    refused_before = num_refused(root)
    sync = BackgroundSync(root, session, uri)
    sync.start()
    status = "FAILED"
    try:
        with _system_metrics(run):
            yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        session.append("end", status=status)
        reason, refused = sync.finish(), num_refused(root) - refused_before
        if reason is not None:
            logger.warning(
                "tracking: %s %s; this run is kept in %s, the next stage or `diffground sync` delivers it",
                recorded,
                reason,
                root,
            )
        elif refused > 0:
            logger.warning("tracking: %s refused %d entries; see %s/refused.jsonl", recorded, refused, root)


@contextmanager
def _system_metrics(run: TrackingRun) -> Iterator[None]:
    """Log them unless MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is false, psutil is missing or counters are."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING as SETTING

    monitor = None
    if not SETTING.is_set() or SETTING.get():
        try:
            from diffground.tracking.system_metrics import Monitor

            monitor = Monitor(run.log_metrics)
            monitor.start()
        except Exception as error:
            logger.warning("no system metrics: %s", first_line(error))
    try:
        yield
    finally:
        if monitor is not None:
            monitor.finish()


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {key: round_metric(value) for key, value in values.items()}
