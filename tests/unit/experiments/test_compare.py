"""Runs side by side, wherever their scores are kept. The tests of this file follow on each other."""

import csv
import io
import json
import sys
from dataclasses import replace

import pytest

from diffground.errors import UserError
from diffground.experiments.collect import collect_experiments
from diffground.experiments.compare import comparison
from diffground.reproduction.config import TrackingConfig, load_params
from diffground.tracking import start_run

KEY = "evaluate_grounding/grounding/one_seen"
OFF = TrackingConfig(enabled=False, uri="", experiment="")


@pytest.fixture(scope="module")
def with_experiment(repository):
    """After timestep_02; one_seen is ten times the step: 10 in the default run, 20 in the experiment."""
    repository.run("timestep_02")
    return repository


@pytest.fixture
def tracking(with_experiment, tmp_path, monkeypatch):
    """A store with two reproductions named 'other run', of which the later one scored 7.5."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DVC_EXP_NAME", "other run")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    tracking = TrackingConfig(enabled=True, uri=f"sqlite:///{tmp_path / 'mlflow.db'}", experiment="diffground")
    params = replace(load_params(with_experiment.root / "params.yaml"), tracking=tracking)
    for seed, score in ((0, 1.0), (1, 7.5)):
        prompts = replace(params.prompts, seed=seed)
        with start_run("evaluate_grounding", replace(params, prompts=prompts)) as run:
            run.log_results({KEY: score, "evaluate_grounding/daam/one_seen": 5.0, "evaluate_grounding/num_images": 9})
    return tracking


def test_a_dvc_experiment_next_to_the_default_run(with_experiment):
    table = comparison(["here", "timestep_02"], root=with_experiment.root, tracking=OFF)
    assert table.header == ("mIoU, %", "here", "timestep_02", "timestep_02 − here")
    assert table.rows == ((KEY, 10.0, 20.0, 10.0),)
    assert table.to_markdown().splitlines()[-1] == f"| {KEY} | 10.0 | 20.0 | 10.0 |"


def test_an_mlflow_run_has_the_same_rows_and_a_score_of_one_run_alone_has_no_difference(with_experiment, tracking):
    names = ["timestep_02", "other run", "here"]
    table = comparison(names, root=with_experiment.root, tracking=tracking)
    assert table.rows == (
        (KEY, 20.0, 7.5, 10.0, -12.5, -10.0),
        ("evaluate_grounding/daam/one_seen", None, 5.0, None, None, None),
    )


def test_a_committed_record_goes_before_the_experiment(with_experiment):
    root = with_experiment.root
    (path,) = collect_experiments(with_experiment.experiments("timestep_02"), profile="mini", root=root).values()
    record = json.loads(path.read_text())
    record["metrics"]["evaluate_grounding"]["grounding"]["one_seen"] = 21.25
    path.write_text(json.dumps(record))
    try:
        assert comparison(["timestep_02"], root=root, tracking=OFF).rows == ((KEY, 21.25),)
    finally:
        path.unlink()


def test_an_older_record_has_its_text2mask_scores_in_the_rows_of_newer_runs(with_experiment):
    root = with_experiment.root
    (path,) = collect_experiments(with_experiment.experiments("timestep_02"), profile="mini", root=root).values()
    record = json.loads(path.read_text())
    older = {**record, "metrics": {"text2mask": {"seen": 23.21, "num_images": 1500}}}
    newer = {
        **record,
        "metrics": {"evaluate_zs3": {"text2mask_labels": {"seen": 24.0}}, "text2mask": {"threshold": 0.4}},
    }
    for name, values in (("older", older), ("newer", newer)):
        path.with_stem(name).write_text(json.dumps(values))
    path.unlink()
    try:
        table = comparison(["older", "newer"], root=root, tracking=OFF)
        assert table.rows == (("evaluate_zs3/text2mask_labels/seen", 23.21, 24.0, 0.79),)
    finally:
        for name in ("older", "newer"):
            path.with_stem(name).unlink()


def test_the_command_prints_it(with_experiment):
    printed = with_experiment.call(sys.executable, "-m", "diffground", "compare", "here", "timestep_02", "--csv")
    header, row = csv.reader(io.StringIO(printed))
    assert (header[1:3], row) == (["here", "timestep_02"], [KEY, "10.0", "20.0", "10.0"])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["timestep_2"], "is named 'timestep_2'; known here: here, timestep_02, and the parent runs in MLflow"),
        (["here", "here"], "'here' is named twice"),
    ],
)
def test_names_that_make_no_comparison(with_experiment, names, expected):
    with pytest.raises(UserError, match=expected):
        comparison(names, root=with_experiment.root, tracking=OFF)
