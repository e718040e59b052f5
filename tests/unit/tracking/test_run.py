import json
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from diffground.reproduction.config import TrackingConfig
from diffground.tracking import REPRODUCTION_TAG, reproduction_metrics, start_run
from diffground.tracking.identity import params_as_text
from diffground.tracking.journal import sessions
from diffground.tracking.store import open_client


def test_stages_of_one_reproduction_share_a_parent_that_holds_the_parameters(params, runs_of):
    for stage in ("generate", "detect"):
        with start_run(stage, params) as run:
            run.log_metrics({"num_images": 3})
    (parent,), (child,) = runs_of(), runs_of("detect")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.metrics["num_images"] == 3.0
    assert parent.data.params["generator.num_steps"] == str(params.generator.num_steps)
    assert parent.data.params["segmenter.training_sets"] == json.dumps(list(params.segmenter.training_sets))
    assert child.data.params["runtime.num_threads"] == str(params.runtime.num_threads)
    assert parent.info.status == child.info.status == "FINISHED"
    assert sessions(Path(".mlflow-journal")) == [], "what has arrived is not kept"


def test_parameters_are_flat_text_at_any_depth():
    values = {"a": {"b": {"c": 1, "d": (1, 2)}}, "e": None}
    assert params_as_text(values) == {"a.b.c": "1", "a.b.d": "[1, 2]", "e": "None"}


def test_other_parameters_are_another_reproduction_and_another_device_is_not(params, runs_of):
    other = replace(params, generator=replace(params.generator, num_steps=9))
    for each in (params, replace(params, runtime=replace(params.runtime, num_threads=7)), other):
        with start_run("generate", each):
            pass
    assert len(runs_of("generate")) == 3
    assert len({run.data.tags[REPRODUCTION_TAG] for run in runs_of()}) == len(runs_of()) == 2


def test_parameters_that_a_killed_delivery_left_out_are_added(params, store, runs_of):
    with start_run("generate", params):
        pass
    (whole,) = runs_of()
    with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
        database.execute("delete from params where key like 'segmenter.%'")
    assert len(runs_of()[0].data.params) < len(whole.data.params)
    with start_run("detect", params):
        pass
    assert runs_of()[0].data.params == whole.data.params


def test_tags_say_what_ran(params, runs_of, monkeypatch):
    for command in ("git init -q", "git config user.email a@b", "git config user.name a"):
        subprocess.run(command.split(), check=True)
    for name in ("code.py", "dvc.lock"):
        Path(name).write_text("stages: {}")
    subprocess.run(["git", "add", "code.py", "dvc.lock"], check=True)
    subprocess.run(["git", "commit", "-qm", "x"], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    Path("dvc.lock").write_text("stages: {x: {}}")  # DVC writes it while stages run
    monkeypatch.setenv("DVC_EXP_NAME", "seen_05")
    with start_run("generate", params):
        pass
    Path("code.py").write_text("2")
    with start_run("detect", params):
        pass
    (parent,), (clean,), (dirty,) = runs_of(), runs_of("generate"), runs_of("detect")
    assert parent.info.run_name == "seen_05"
    for run in (parent, clean, dirty):
        tags = run.data.tags
        assert (tags["mlflow.source.git.commit"], tags["dvc.experiment"]) == (commit, "seen_05")
        assert (tags["diffground.profile"], tags["diffground.generator.sha256"]) == (
            "smoke",
            "models/smoke/diffusion",
        )
    assert (clean.data.tags["diffground.dirty"], dirty.data.tags["diffground.dirty"]) == ("false", "true")


def test_results_are_in_the_run_of_the_reproduction_too_where_compare_finds_them(params, runs_of):
    with start_run("evaluate_zs3", params) as run:
        run.log_metrics({"loss": 1.0}, step=50)
        run.log_results({"evaluate_zs3/synthetic/harmonic": 40.0})
    (parent,), (child,) = runs_of(), runs_of("evaluate_zs3")
    assert parent.data.metrics == {"evaluate_zs3/synthetic/harmonic": 40.0}
    assert {"loss", "evaluate_zs3/synthetic/harmonic"} <= set(child.data.metrics)
    for name in (parent.info.run_name, parent.info.run_id):
        assert reproduction_metrics(name, params.tracking) == parent.data.metrics
    assert reproduction_metrics("another", params.tracking) is None
    assert reproduction_metrics("x", TrackingConfig(True, "sqlite:///none.db", "diffground")) is None
    assert not Path("none.db").exists()


def test_system_metrics_are_logged_at_intervals_and_at_the_end(params, runs_of, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    with start_run("generate", params):
        time.sleep(0.5)
    (run,) = runs_of("generate")
    points = open_client(params.tracking.uri).get_metric_history(
        run.info.run_id, "system/system_memory_usage_megabytes"
    )
    # twice in 0.5 s and once at the end, at least: a busy machine takes longer to end the run
    assert len(points) >= 3
    assert [point.step for point in points] == list(range(len(points)))
    assert all(point.value > 10 for point in points)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    with start_run("detect", params):
        pass
    assert runs_of("detect")[0].data.metrics == {}


def test_without_psutil_all_other_metrics_are_logged(params, runs_of, monkeypatch, caplog):
    for name in list(sys.modules):
        if name.startswith(("mlflow.system_metrics.", "diffground.tracking.system_metrics")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psutil", None)
    with start_run("generate", params) as run:
        run.log_metrics({"x": 1.0})
    assert runs_of("generate")[0].data.metrics == {"x": 1.0}
    assert "no system metrics: import of psutil halted" in caplog.text


def test_artifacts_are_next_to_the_store_wherever_the_stage_runs(params, store, runs_of):
    Path("table.csv").write_text("x\n")
    with start_run("report", params) as run:
        run.log_artifact(Path("table.csv"))
    folder = Path(store.removeprefix("sqlite:///")).parent
    (logged,) = runs_of("report")
    assert [p.name for p in folder.glob(f"mlruns/{logged.info.run_id}/artifacts/*")] == ["table.csv"]
    assert sorted(path.name for path in Path().iterdir()) == [".mlflow-journal", "table.csv"]


def test_logs_curves_files_and_folders(params, runs_of):
    Path("figures").mkdir()
    Path("figures/a.png").write_bytes(b"png")
    Path("table.csv").write_text("x\n")
    with start_run("report", params) as run:
        for step in range(3):
            run.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
        run.log_artifact(Path("table.csv"))
        run.log_artifact(Path("figures"), folder="figures")
        Path("table.csv").write_text("later\n")  # what is logged is the file as it was
    (logged,) = runs_of("report")
    client, run_id = open_client(params.tracking.uri), logged.info.run_id
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == [0, 1, 2]
    assert [file.path for file in client.list_artifacts(run_id, "figures")] == ["figures/a.png"]
    assert Path(client.download_artifacts(run_id, "table.csv")).read_text() == "x\n"


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_stage_that_stops_is_marked_and_its_error_passes_through(params, runs_of, error, status):
    with pytest.raises(error), start_run("detect", params):
        raise error
    assert runs_of("detect")[0].info.status == status


@pytest.mark.parametrize("rank", [None, "1"])
def test_switched_off_or_in_a_second_process_of_a_training_it_writes_nothing(params, monkeypatch, rank):
    if rank is None:
        params = replace(params, tracking=replace(params.tracking, enabled=False))
    else:
        monkeypatch.setenv("RANK", rank)
    with start_run("generate", params) as run:
        run.log_metrics({"x": 1.0})
        run.log_results({"x": 1.0})
        run.log_artifact(Path("missing"))
    assert list(Path().iterdir()) == []


def test_the_environment_goes_before_the_parameter(params, runs_of, monkeypatch, store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    with start_run("generate", replace(params, tracking=replace(params.tracking, uri="sqlite:////proc/none.db"))):
        pass
    assert len(runs_of("generate")) == 1


def test_data_sets_have_the_digests_of_their_shards_and_of_dvc(params, runs_of):
    shards = Path("data/generated/train")
    lists = Path("data/real/ImageSets/Segmentation")
    for folder in (shards, lists):
        folder.mkdir(parents=True)
    (shards / "fingerprint.json").write_text("{}")
    (shards / "000000.tar").write_bytes(b"")
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    Path("dvc.yaml").write_text(
        "stages: {train: {cmd: x, deps: [src, data/generated/train, data/real, data/missing],"
        " params: [data.train_list, data.val_list]}}"
    )
    lock = "stages: {prepare_data: {outs: [{path: data/real, md5: 0123456789abcdef0123456789abcdef.dir}]}}"
    Path("dvc.lock").write_text(lock)
    with start_run("train", params):
        pass
    inputs = {i.dataset.name: i for i in runs_of("train")[0].inputs.dataset_inputs}
    assert set(inputs) == {"generated/train", "real/train", "real/val"}
    # sha256 of "{}"
    assert inputs["generated/train"].dataset.digest == "44136fa355b3678a1146ad16f7e8649e"
    assert inputs["real/val"].dataset.digest == "0123456789abcdef0123456789abcdef"
    assert json.loads(inputs["real/train"].dataset.source) == {"uri": "data/real"}
    assert json.loads(inputs["real/train"].dataset.profile) == {"num_images": 2}
    assert {name: i.tags[0].value for name, i in inputs.items()} == {
        "generated/train": "train",
        "real/train": "train",
        "real/val": "val",
    }
