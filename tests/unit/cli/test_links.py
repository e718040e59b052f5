"""The links that `diffground reproduce` prints at its end."""

from dataclasses import replace

import pytest

from diffground.cli.links import links
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import TrackingConfig, load_params
from tests.documented import ROOT


@pytest.fixture
def tracking(tmp_path, monkeypatch) -> TrackingConfig:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text(compose_params("smoke", conf=ROOT / "conf"))
    return load_params(tmp_path / "params.yaml").tracking


def test_every_link_that_needs_a_server_has_the_command_that_starts_it(tracking, tmp_path):
    assert links(tracking) == [
        f"report: file://{tmp_path}/reports/index.html",
        "runs, side by side: http://127.0.0.1:5000/#/experiments",
        "  after `MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri sqlite:///mlflow.db`",
        "deployments: http://127.0.0.1:4200/deployments (after `python -m flows up`)",
    ]


def test_runs_that_are_not_tracked_have_no_link(tracking):
    assert [line.partition(":")[0] for line in links(replace(tracking, enabled=False))] == ["report", "deployments"]


def test_a_server_that_is_away_is_reported_without_its_password(tracking, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:1")
    _, runs, _ = links(tracking)
    assert runs.startswith("runs: tracking.uri: http://127.0.0.1:1 ") and "secret" not in runs
