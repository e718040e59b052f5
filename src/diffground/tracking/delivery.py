"""From the journal to MLflow: in order, with the times at which things happened, each exactly once.

Every operation may be repeated without a second effect, so that a process that dies between an operation and the note
that it is done does no harm: runs are looked for by a tag before they are made, MLflow itself drops a metric, parameter
or dataset that it has already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffground.errors import UserError
from diffground.tracking.journal import Entry, Progress, Session, alone, remove_leftovers, sessions
from diffground.tracking.models import judge_model, log_model
from diffground.tracking.store import Store, UnavailableError, first_line

REPRODUCTION_TAG = "diffground.reproduction"
"""Tag of a parent run: digest of commit, DVC experiment and parameters. Stages with the same digest share a parent."""
SESSION_TAG = "diffground.journal"
"""Tag of a stage's run: the journal that it came from."""

# A batch of MLflow's logging interface holds at most this many.
_MAX_PARAMS, _MAX_METRICS, _MAX_TAGS = 100, 1000, 100
_MAX_PARAM_LENGTH = 6000
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}


def deliver_all(root: Path, open_store: Callable[[str], Store], *, own: Session | None = None) -> dict[str, str]:
    """Deliver every session below `root` that no other process holds, in order; `own` is held by this one.

    open_store: of the URI that a session was written for. Returns: that URI -> why it takes nothing now.
    """
    away: dict[str, str] = {}
    remove_leftovers(root)
    for session in sessions(root):
        live = own is not None and session.key == own.key
        if live and own is not None:
            session = own
        elif not session.acquire():
            continue
        try:
            if not live:
                session.close_after_death()
            _deliver_or_note(session, open_store, away, live=live)
        finally:
            if not live:
                session.release()
    return away


def _deliver_or_note(session: Session, open_store: Callable[[str], Store], away: dict[str, str], *, live: bool) -> None:
    begin = next(session.entries(), None)
    if begin is None:
        if not live:
            session.remove()  # killed before it wrote anything
        return
    uri = begin.values["uri"]
    if uri in away:
        return
    try:
        deliver(session, open_store(uri))
    except UnavailableError as error:
        away[uri] = str(error)


def deliver(session: Session, store: Store) -> None:
    """Send what has not arrived yet; remove the session after its last entry.

    Raises: UnavailableError when the store does not take it now; what has arrived until then is noted.
    """
    client = store.client()
    progress = session.progress()
    if progress.ids and _is_gone(client, progress.ids["run"]):
        progress = Progress()  # another database under the same name: everything is still here
    ended = False
    for batch in _batches(session.entries(offset=progress.offset)):
        try:
            if len(batch) > 1:
                _log_metrics(client, progress.ids[batch[0].values["to"]], batch)
            else:
                _deliver_entry(batch[0], session, store, progress.ids)
        except Exception as error:
            if batch[0].op == "begin" or not (_is_refusal(error) and _is_there(client, progress.ids["run"])):
                raise UnavailableError(first_line(error)) from error
            for entry in batch:
                session.refuse(entry, first_line(error))
        progress.offset = batch[-1].end
        session.save_progress(progress)
        ended = batch[-1].op == "end"
    if ended:
        session.remove()


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Metrics of one run that follow on each other together, up to _MAX_METRICS; everything else alone."""
    batch: list[Entry] = []
    for entry in entries:
        together = [*batch, entry]
        if batch and (
            any(e.op != "metrics" or e.values["to"] != batch[0].values["to"] for e in together)
            or sum(len(e.values["values"]) for e in together) > _MAX_METRICS
        ):
            yield batch
            together = [entry]
        batch = together
    if batch:
        yield batch


def _deliver_entry(entry: Entry, session: Session, store: Store, ids: dict[str, str]) -> None:
    client, values = store.client(), entry.values
    run_id = ids.get(values.get("to", "run"), "")
    match entry.op:
        case "begin":
            with alone(session.folder.parent):
                _begin(client, entry, session.key, store.artifact_location(), ids)
        case "metrics":
            _log_metrics(client, run_id, [entry])
        case "params":
            _log_params(client, run_id, values["values"])
        case "inputs":
            for key in ("run", "parent"):
                _log_inputs(client, ids[key], values["datasets"])
        case "artifact":
            path = session.kept(values["file"])
            log = client.log_artifacts if path.is_dir() else client.log_artifact
            log(run_id, str(path), values["folder"])
        case "model":
            with alone(session.folder.parent):
                log_model(client, run_id, session.kept(values["file"]), values)
        case "judge":
            with alone(session.folder.parent):
                judge_model(client, values)
        case "end":
            for key in ("run", "parent"):
                client.set_terminated(ids[key], status=values["status"], end_time=entry.at_ms)
        case _:
            raise UserError(f"{session.folder}: '{entry.op}' is of another version of diffground")


def _begin(client: Any, entry: Entry, key: str, artifact_location: str | None, ids: dict[str, str]) -> None:
    values = entry.values
    parent = values["parent"]
    experiment = client.get_experiment_by_name(values["experiment"])
    ids["experiment"] = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(values["experiment"], artifact_location=artifact_location)
    )
    ids["parent"] = _find_or_create(
        client, ids["experiment"], REPRODUCTION_TAG, parent["digest"], name=parent["name"], at_ms=entry.at_ms
    )
    _set_tags(client, ids["parent"], parent["tags"])
    if not client.get_run(ids["parent"]).data.params:
        _log_params(client, ids["parent"], parent["params"])
    ids["run"] = _find_or_create(
        client, ids["experiment"], SESSION_TAG, key, name=values["stage"], at_ms=entry.at_ms, parent_id=ids["parent"]
    )
    _set_tags(client, ids["run"], values["tags"])
    _log_params(client, ids["run"], values["params"])


def _find_or_create(
    client: Any, experiment_id: str, tag: str, value: str, *, name: str, at_ms: int, parent_id: str = ""
) -> str:
    found = client.search_runs([experiment_id], f"tags.`{tag}` = '{value}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {tag: value, **({"mlflow.parentRunId": parent_id} if parent_id else {})}
    return str(client.create_run(experiment_id, start_time=at_ms, run_name=name, tags=tags).info.run_id)


def _log_metrics(client: Any, run_id: str, entries: Sequence[Entry]) -> None:
    from mlflow.entities import Metric

    metrics = [
        Metric(key, float(value), entry.at_ms, entry.values["step"])
        for entry in entries
        for key, value in entry.values["values"].items()
    ]
    for start in range(0, len(metrics), _MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _MAX_METRICS])


def _log_params(client: Any, run_id: str, values: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(key, str(value)[:_MAX_PARAM_LENGTH]) for key, value in values.items()]
    for start in range(0, len(entries), _MAX_PARAMS):
        client.log_batch(run_id, params=entries[start : start + _MAX_PARAMS])


def _set_tags(client: Any, run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in values.items()][:_MAX_TAGS])


def _log_inputs(client: Any, run_id: str, datasets: list[dict[str, str]]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    client.log_inputs(run_id, [
        DatasetInput(
            Dataset(d["name"], d["digest"], "local", d["source"], profile=d["profile"]),
            tags=[InputTag("mlflow.data.context", d["context"])],
        )
        for d in datasets
    ])  # fmt: skip


def _is_refusal(error: Exception) -> bool:
    """Whether trying again would end in the same way: the store understood, and said no."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, UserError | FileNotFoundError) or (
        isinstance(error, MlflowException) and error.error_code in _REFUSALS
    )


def _is_there(client: Any, run_id: str) -> bool:
    try:
        client.get_run(run_id)
    except Exception:
        return False
    return True


def _is_gone(client: Any, run_id: str) -> bool:
    """Whether the store answers, and does not know the run."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")
    except Exception:
        return False
    return False
