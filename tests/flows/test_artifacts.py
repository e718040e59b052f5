"""MLflow's comparison of runs, as the page of an ablation links to it."""

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import load_params
from diffground.tracking import find_reproductions, newest_page, start_run
from diffground.tracking.store import open_client
from flows.artifacts import compared_runs
from flows.places import MLFLOW_UI, ROOT


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    """A store with two reproductions of experiment a, one of b, and one of no experiment."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DIFFGROUND_JOURNAL", "RANK", MLFLOW_UI):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    Path("params.yaml").write_text(compose_params("smoke", conf=ROOT / "conf"))
    params = load_params(Path("params.yaml"))
    for experiment, seed in (("a", 0), ("b", 0), ("a", 1), ("", 0)):
        monkeypatch.setenv("DVC_EXP_NAME", experiment)
        with start_run("detect", replace(params, prompts=replace(params.prompts, seed=seed))) as run:
            run.log_results({"detect/seed": seed})
    return params.tracking


def test_the_link_names_the_newest_reproduction_of_each_experiment(tracking, monkeypatch):
    runs = find_reproductions(["b", "a", "c"], tracking)
    assert list(runs) == ["b", "a"]
    client = open_client(tracking.uri)
    tags = {name: client.get_run(run.run_id).data for name, run in runs.items()}
    assert [(data.tags["dvc.experiment"], data.metrics) for data in tags.values()] == [
        ("b", {"detect/seed": 0}),
        ("a", {"detect/seed": 1}),
    ]

    monkeypatch.setenv(MLFLOW_UI, "http://127.0.0.1:5000")
    page = compared_runs(["b", "a", "c"], tracking)
    start = "[MLflow's comparison](http://127.0.0.1:5000/#/compare-runs?"
    assert page.startswith(start) and page.endswith("\n\nNo stage had to run, so MLflow has no run: c.")
    query = parse_qs(page.removeprefix(start).partition(")")[0], strict_parsing=True)
    assert json.loads(query["runs"][0]) == [runs["b"].run_id, runs["a"].run_id]
    assert json.loads(query["experiments"][0]) == [runs["a"].experiment_id]
    assert f"| a | `{runs['a'].run_id}` |" in page.splitlines()


def test_without_tracking_there_is_nothing_to_compare(tracking):
    assert compared_runs(["a"], replace(tracking, enabled=False)) == ""


def test_the_newest_page_compares_the_newest_run_of_each_stage_of_the_newest_reproduction(tracking):
    params = load_params(Path("params.yaml"))
    for stage in ("generate", "detect", "generate"):
        with start_run(stage, params) as run:
            run.log_results({f"{stage}/seed": 0})
    page = newest_page(params.tracking)
    query = parse_qs(page.removeprefix("/#/compare-runs?"), strict_parsing=True)
    client = open_client(params.tracking.uri)
    tags = [client.get_run(run_id).data.tags for run_id in json.loads(query["runs"][0])]
    assert [run["mlflow.runName"] for run in tags] == ["detect", "generate"]
    assert [run for run in tags if run.get("dvc.experiment")] == []
    assert len({run["mlflow.parentRunId"] for run in tags}) == 1


def test_the_newest_page_of_an_empty_store_is_the_list_of_experiments(tracking):
    assert newest_page(replace(tracking, uri="sqlite:///none.db")) == "/#/experiments"
    assert not Path("none.db").exists()
