"""From the journal to MLflow: in order, with the times at which things happened, each exactly once.

Every operation may be repeated without a second effect, so an interrupted session is delivered again from its first
entry: runs are looked for by a tag before they are made, models by the digest of their weights, and MLflow itself
drops a metric, parameter, tag or dataset that it already has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import Any

from filelock import FileLock

from diffground.errors import UserError
from diffground.tracking.journal import Session
from diffground.tracking.models import register_model
from diffground.tracking.store import UnavailableError, artifact_location, first_line

REPRODUCTION_TAG = "diffground.reproduction"
"""Tag of a parent run: digest of commit, DVC experiment and parameters. Stages with the same digest share a parent."""
SESSION_TAG = "diffground.journal"
"""Tag of a stage's run: the journal that it came from."""

_MAKERS = {"begin", "model"}
"""Operations that look for something before they make it: two processes at once would make it twice."""
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}

Entry = dict[str, Any]


def deliver(session: Session, client: Any, *, live: bool) -> None:
    """Send what this process has not sent yet; remove the session after its last entry.

    live: the stage still runs in this process. A session without an end whose stage does not run was killed.
    Raises: UnavailableError when the store does not take it now.
    """
    for _, group in groupby(session.entries(offset=session.offset), key=_batch_key):
        batch, ends = zip(*group, strict=True)
        _deliver_batch(session, client, batch)
        session.offset = ends[-1]
        if batch[-1]["op"] == "end":
            session.remove()
            return
    if not live:
        *_, (last, _) = session.entries()
        _deliver_batch(session, client, [{"op": "end", "at_ms": last["at_ms"], "status": "KILLED"}])
        session.remove()


def _batch_key(found: tuple[Entry, int]) -> Any:
    """Equal for consecutive metrics of the same runs, which are sent in one call; different for other entries."""
    entry, end = found
    return entry["to"] if entry["op"] == "metrics" else end


def _deliver_batch(session: Session, client: Any, batch: Sequence[Entry]) -> None:
    makes = batch[0]["op"] in _MAKERS
    try:
        with FileLock(session.folder.parent / ".lock") if makes else nullcontext():
            _apply(session, client, batch)
    except Exception as error:
        refused = batch[0]["op"] != "begin" and _is_refusal(error)
        if not refused or not _has_run(client, session.ids["run"]):
            if refused:  # another database under the same name: send everything again
                session.offset, session.ids = 0, {}
            raise UnavailableError(f"is away ({first_line(error)})") from error
        if len(batch) == 1:
            session.refuse(batch[0], first_line(error))
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):  # until the refused entry is found
            _deliver_batch(session, client, half)


def _apply(session: Session, client: Any, batch: Sequence[Entry]) -> None:
    """Send one entry, or metrics of several."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

    entry, ids = batch[0], session.ids
    match entry["op"]:
        case "begin":
            session.ids = _begin(client, session.key, entry)
        case "metrics":
            metrics = [Metric(key, value, e["at_ms"], e["step"]) for e in batch for key, value in e["metrics"].items()]
            for to in entry["to"]:
                client.log_batch(ids[to], metrics=metrics)
        case "inputs":
            inputs = [
                DatasetInput(Dataset(**d["dataset"]), [InputTag("mlflow.data.context", d["context"])])
                for d in entry["datasets"]
            ]
            client.log_inputs(ids["run"], inputs)
        case "artifact":
            path = session.folder / entry["file"]
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            log(ids["run"], str(path), entry["folder"])
        case "model":
            register_model(client, ids["run"], session.folder / entry["file"], entry)
        case "end":
            for run_id in ids.values():
                client.set_terminated(run_id, status=entry["status"], end_time=entry["at_ms"])
        case unknown:
            raise UserError(f"{session.folder}: '{unknown}' is of another version of diffground")


def _begin(client: Any, key: str, entry: Entry) -> dict[str, str]:
    """Find or make the parent run and the stage's run; return their ids."""
    name, parent, run = entry["experiment"], entry["parent"], entry["run"]
    experiment = client.get_experiment_by_name(name)
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(name, artifact_location=artifact_location(entry["uri"]))
    )
    tags = {REPRODUCTION_TAG: parent["digest"], **parent["tags"]}
    parent_id = _find_or_create(client, experiment_id, {**parent, "tags": tags}, at_ms=entry["at_ms"])
    tags = {SESSION_TAG: key, "mlflow.parentRunId": parent_id, **run["tags"]}
    run_id = _find_or_create(client, experiment_id, {**run, "tags": tags}, at_ms=entry["at_ms"])
    return {"run": run_id, "parent": parent_id}


def _find_or_create(client: Any, experiment_id: str, run: Mapping[str, Any], *, at_ms: int) -> str:
    """The id of the run whose first tag has this value; its tags and parameters are those of `run` afterwards."""
    from mlflow.entities import Param, RunTag

    tag, value = next(iter(run["tags"].items()))
    found = client.search_runs([experiment_id], f"tags.`{tag}` = '{value}'", max_results=1)
    made = found[0] if found else client.create_run(experiment_id, at_ms, {tag: value}, run["name"])
    run_id = str(made.info.run_id)
    tags = [RunTag(key, value) for key, value in run["tags"].items()]
    params = [Param(key, value) for key, value in run["params"].items()]
    client.log_batch(run_id, params=params, tags=tags)
    return run_id


def _is_refusal(error: Exception) -> bool:
    """Whether a second try would end in the same way, because the store understood and refused."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, UserError | FileNotFoundError) or (
        isinstance(error, MlflowException) and error.error_code in _REFUSALS
    )


def _has_run(client: Any, run_id: str) -> bool:
    """Whether the store has the run; False also without an answer, so the entry is tried again."""
    try:
        client.get_run(run_id)
    except Exception:
        return False
    return True
