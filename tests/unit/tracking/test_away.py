"""A server or a database that is missing at the start, in the middle or at the end; later it has everything once."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import diffground
from diffground.errors import UserError
from diffground.tracking import delivery, load_model, start_run, sync_journal
from diffground.tracking.journal import sessions
from diffground.tracking.store import open_client
from tests.unit.tracking.toy_models import judge, save_segmenter

JOURNAL = Path(".mlflow-journal")


@pytest.fixture(autouse=True)
def without_system_metrics(monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")


def log_stage(params, stage="train_grounding", *, after=lambda step: None):
    """A short training: three points of a curve, a file, a result. Returns: s that the body of the run took."""
    Path("card.md").write_text(stage)
    with start_run(stage, params) as run:
        start = time.monotonic()
        for step in range(3):
            run.log_metrics({"loss": 3.0 - step}, step=step)
            after(step)
        run.log_artifact(Path("card.md"))
        run.log_results({f"{stage}/final_loss": 1.0})
        return time.monotonic() - start


def everything(uri, *, stages):
    """Content of the store for `stages`, without ids; asserts that each stage is there once."""
    client = open_client(uri)
    experiments = client.search_experiments(filter_string="name = 'diffground'")
    runs = client.search_runs([e.experiment_id for e in experiments], order_by=["attributes.start_time ASC"])
    children = {run.data.tags["diffground.stage"]: run for run in runs if "diffground.stage" in run.data.tags}
    parents = [run for run in runs if "diffground.stage" not in run.data.tags]
    assert list(children) == stages
    assert len(runs) == len(stages) + 1
    held = {"parent": parents[0].data.metrics}
    for stage, run in children.items():
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        points = client.get_metric_history(run.info.run_id, "loss")
        card = Path(client.download_artifacts(run.info.run_id, "card.md")).read_text()
        held[stage] = ([(p.step, p.value) for p in points], run.data.metrics, card, run.info.status)
    return held


def expected(*stages):
    one = {
        stage: ([(0, 3.0), (1, 2.0), (2, 1.0)], {"loss": 1.0, f"{stage}/final_loss": 1.0}, stage, "FINISHED")
        for stage in stages
    }
    return {"parent": {f"{stage}/final_loss": 1.0 for stage in stages}, **one}


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def times(uri):
    """Stage -> start, end and the times of the curve, ms."""
    client = open_client(uri)
    runs = client.search_runs([client.get_experiment_by_name("diffground").experiment_id])
    return {
        run.data.tags.get("diffground.stage", "parent"): (
            run.info.start_time,
            run.info.end_time,
            [point.timestamp for point in client.get_metric_history(run.info.run_id, "loss")],
        )
        for run in runs
    }


def test_a_server_that_is_away_at_the_start_in_the_middle_and_at_the_end(
    params_of_server, server, runs_of, caplog, components
):
    uri = server.uri
    before_ms = time.time() * 1000
    took_s = log_stage(params_of_server, "generate")  # away from start to end
    after_ms = time.time() * 1000
    assert took_s < 1, "nothing waits for a dead server"
    (warning,) = caplog.messages
    assert warning.startswith(f"tracking: {uri} is away (") and "\n" not in warning
    assert "`diffground sync`" in warning
    caplog.clear()

    def restart(step):
        if step == 0:
            wait_until(lambda: runs_of("detect", uri=uri))
            server.kill()
        elif step == 1:
            time.sleep(1)  # the delivery fails
            server.start()

    server.start()
    log_stage(params_of_server, "detect", after=restart)  # delivers the one before, too
    assert caplog.messages == []
    assert sessions(JOURNAL) == []
    assert everything(uri, stages=["generate", "detect"]) == expected("generate", "detect")
    start, end, points = times(uri)["generate"]
    assert before_ms - 1 <= start <= points[0] <= points[-1] <= end <= after_ms
    assert times(uri)["parent"][0] == start, "the parent began with the first stage, not with its delivery"

    def kill(step):
        if step == 2:
            wait_until(lambda: runs_of("train_grounding", uri=uri))
            server.kill()

    log_stage(params_of_server, "train_grounding", after=kill)
    assert "is away" in caplog.text
    reason = r"is away .*0 of 1 runs delivered, the others stay in \.mlflow-journal"
    with pytest.raises(UserError, match=reason) as error:
        sync_journal(JOURNAL, uri=uri)
    assert "\n" not in str(error.value)
    server.start()
    assert [sync_journal(JOURNAL, uri=uri).num_delivered for _ in range(2)] == [1, 0]
    stages = ["generate", "detect", "train_grounding"]
    assert everything(uri, stages=stages) == expected(*stages)

    server.kill()
    segmenter = save_segmenter(Path("synthetic"), components)
    judge(params_of_server, Path("synthetic"), 43.6)
    server.start()
    assert sync_journal(JOURNAL, uri=uri).num_refused == 0
    served = load_model("models:/diffground-segmenter@champion", tracking_uri=uri)
    images = np.zeros((2, 40, 56, 3), dtype=np.uint8)
    assert np.array_equal(served.predict(images)[0], segmenter.predict(list(images))[0].argmax(axis=0))


def test_an_interrupted_delivery_is_repeated_without_a_second_effect(params, monkeypatch):
    away = replace(params, tracking=replace(params.tracking, uri="http://127.0.0.1:9"))
    for stage in ("generate", "detect"):
        log_stage(away, stage)
    saved = [shutil.copytree(session.folder, Path(session.key)) for session in sessions(JOURNAL)]
    for session in sessions(JOURNAL):  # as if they had been written for the store that is there
        redirect(session.folder, params.tracking.uri)
    for folder in saved:
        redirect(folder, params.tracking.uri)

    apply = delivery._apply

    def dying(session, client, batch):
        apply(session, client, batch)
        if dying.left == 0:  # the operation has taken effect
            raise KeyboardInterrupt("died here")
        dying.left -= 1

    for left in (0, 1, 2, 3, 4):
        dying.left = left
        with monkeypatch.context() as patch:
            patch.setattr(delivery, "_apply", dying)
            with pytest.raises(KeyboardInterrupt, match="died here"):
                sync_journal(JOURNAL, uri=params.tracking.uri)
    sync_journal(JOURNAL, uri=params.tracking.uri)
    assert everything(params.tracking.uri, stages=["generate", "detect"]) == expected("generate", "detect")
    for folder in saved:  # even a whole journal that comes again, e.g. from a backup
        shutil.copytree(folder, JOURNAL / folder.name)
    assert sync_journal(JOURNAL, uri=params.tracking.uri).num_delivered == 2
    assert everything(params.tracking.uri, stages=["generate", "detect"]) == expected("generate", "detect")


def redirect(folder, uri):
    """Let a session be of another store."""
    path = folder / "entries.jsonl"
    begin, *others = path.read_text().splitlines(keepends=True)
    entry = json.loads(begin)
    entry["uri"] = uri
    path.write_text(json.dumps(entry) + "\n" + "".join(others))


def test_no_stage_waits_for_a_server_that_never_answers(params, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        assert log_stage(replace(params, tracking=replace(params.tracking, uri=uri))) < 2
        assert time.monotonic() - start < 15, "waited for as long as its time-out"
    assert "is away" in caplog.text


def test_no_stage_waits_for_a_locked_database(params, store, caplog):
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        database.execute("begin exclusive")
        assert log_stage(params) < 1
        database.rollback()
    assert "database is locked" in caplog.text
    assert sync_journal(JOURNAL, uri=store).num_delivered == 1
    assert everything(store, stages=["train_grounding"]) == expected("train_grounding")


def test_a_database_that_cannot_be_there(params, caplog):
    start = time.monotonic()
    log_stage(replace(params, tracking=replace(params.tracking, uri="sqlite:////proc/no/such/mlflow.db")))
    assert time.monotonic() - start < 10
    assert caplog.messages[0].startswith("tracking: sqlite:////proc/no/such/mlflow.db is away")
    assert len(sessions(JOURNAL)) == 1


def test_a_database_that_was_deleted_gets_everything_again(params, store, empty_database):
    path = Path(store.removeprefix("sqlite:///"))
    script = f"""
import os, sys, time
from pathlib import Path
from diffground.reproduction.config import load_params
from diffground.tracking import find_run, start_run
params = load_params(Path(sys.argv[1]))
with start_run("generate", params) as run:
    run.log_metrics({{"loss": 3.0}}, step=0)
    while not find_run("generate", params.tracking):
        time.sleep(0.02)
    os.unlink({str(path)!r})
    run.log_metrics({{"loss": 2.0}}, step=1)
    os._exit(9)
"""
    assert run_python(script, params).returncode == 9
    shutil.copyfile(empty_database, path)
    assert sync_journal(JOURNAL, uri=store).num_delivered == 1
    client = open_client(store)
    experiment = client.get_experiment_by_name("diffground").experiment_id
    (run,) = client.search_runs([experiment], "tags.`diffground.stage` = 'generate'")
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == [0, 1]


def test_a_killed_stage_ends_as_killed_at_the_time_of_its_last_entry(params, runs_of):
    script = """
import os, signal, sys, time
from pathlib import Path
from diffground.reproduction.config import load_params
from diffground.tracking import start_run
with start_run("generate", load_params(Path(sys.argv[1]))) as run:
    run.log_metrics({"loss": 3.0})
    with next(Path(".mlflow-journal").glob("*-generate-*/entries.jsonl")).open("a") as file:
        file.write('{"op": "metr')
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python(script, params).returncode == -signal.SIGKILL
    time.sleep(0.01)
    now_ms = time.time() * 1000
    assert sync_journal(JOURNAL, uri=params.tracking.uri).num_delivered == 1
    (run,) = runs_of("generate")
    assert (run.info.status, run.data.metrics) == ("KILLED", {"loss": 3.0})
    assert run.info.end_time < now_ms


def run_python(script, params):
    path = Path("killed.yaml")
    path.write_text((Path().resolve().parent / "params.yaml").read_text())
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    command = [sys.executable, "-c", script, str(path)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_sync_skips_a_running_stage(params):
    with start_run("generate", params):
        summary = sync_journal(JOURNAL, uri=params.tracking.uri)
        assert (summary.num_delivered, summary.num_left) == (0, 1)
    assert sessions(JOURNAL) == []


def test_a_refused_entry_is_set_aside_and_the_next_ones_are_delivered(params, runs_of, caplog):
    with start_run("generate", params) as run:
        run.log_metrics({"l*ss": 1.0})  # MLflow takes no star in a name
        run.log_metrics({"loss": 3.0})
    assert runs_of("generate")[0].data.metrics == {"loss": 3.0}
    assert "refused 1 entries; see .mlflow-journal/refused.jsonl" in caplog.text
    assert json.loads((JOURNAL / "refused.jsonl").read_text())["metrics"] == {"l*ss": 1.0}
    assert sync_journal(JOURNAL, uri=params.tracking.uri).num_refused == 1


def test_only_the_refused_metric_of_a_batch_is_left_out(params, runs_of):
    with start_run("generate", params) as run:
        for step, name in enumerate(("loss", "l*ss", "loss")):  # MLflow takes no star in a name
            run.log_metrics({name: 1.0}, step=step)
    client = open_client(params.tracking.uri)
    points = client.get_metric_history(runs_of("generate")[0].info.run_id, "loss")
    assert [point.step for point in points] == [0, 2]
    assert json.loads((JOURNAL / "refused.jsonl").read_text())["metrics"] == {"l*ss": 1.0}


def test_a_journal_of_another_version_is_reported_and_stays(params):
    entries = JOURNAL / "1700000000000-generate-0a1b2c3d" / "entries.jsonl"
    entries.parent.mkdir(parents=True)
    entries.write_text('{"op": "begin", "at_ms": 1700000000000, "values": {"uri": "sqlite:///mlflow.db"}}\n')
    with pytest.raises(UserError, match=r"generate-0a1b2c3d is of another version of diffground.*0 of 1 runs"):
        sync_journal(JOURNAL, uri=params.tracking.uri)
    assert entries.is_file()
    with start_run("detect", params):
        pass
    assert [session.folder for session in sessions(JOURNAL)] == [entries.parent], "other sessions are delivered"


def test_no_password_is_written_down(params):
    uri = "http://me:secret@127.0.0.1:9"
    log_stage(replace(params, tracking=replace(params.tracking, uri=uri)))
    (session,) = sessions(JOURNAL)
    assert next(session.entries())[0]["uri"] == "http://127.0.0.1:9"
    assert not [path for path in JOURNAL.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


def test_points_of_a_curve_are_sent_together_with_their_own_times(params, runs_of):
    with start_run("generate", params) as run:
        for step in range(2500):
            run.log_metrics({"loss": float(step)}, step=step)
    client = open_client(params.tracking.uri)
    points = client.get_metric_history(runs_of("generate")[0].info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(step, float(step)) for step in range(2500)]
    assert len({point.timestamp for point in points}) > 5
