"""What `diffground reproduce` says about all stages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffground.reproduction.overview import (
    COMMITTED_TIMES,
    begin,
    overview,
    record_times,
    stage_begins,
    stage_ended,
)

ROOT = Path(__file__).parents[3]
STAGES = ["first", "second", "third"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").write_text("stages:\n" + "".join(f"  {name}: {{cmd: x}}\n" for name in STAGES))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line(stage, here=(), committed=(), elapsed_s=90.0):
    return overview(stage, stages=STAGES, elapsed_s=elapsed_s, here=dict(here), committed=dict(committed))


def test_the_time_left_is_that_of_the_committed_run_at_the_pace_of_this_one():
    committed = {"first": 60.0, "second": 240.0, "third": 600.0}
    assert line("first", committed=committed, elapsed_s=0.1) == (
        "stage 1 of 3: first; less than 1 min so far, about 15 min left"
    )
    # the first stage took twice as long here
    assert line("second", {"first": 120.0}, committed) == "stage 2 of 3: second; 2 min so far, about 28 min left"
    assert line("third", committed={**committed, "third": 20.0}) == (
        "stage 3 of 3: third; 2 min so far, less than 1 min left"
    )


def test_without_the_times_of_a_stage_nothing_is_predicted():
    assert line("second", committed={"first": 60.0, "second": 60.0}) == "stage 2 of 3: second; 2 min so far"


def test_only_a_whole_reproduction_is_recorded(place, monkeypatch):
    assert stage_begins("first") is None, "not started by `diffground reproduce`"
    for key, value in begin().items():
        monkeypatch.setenv(key, value)
    assert stage_begins("first") == "stage 1 of 3: first; less than 1 min so far"
    stage_ended("first", time_s=1.26)
    stage_ended("second", time_s=2.0)
    assert not record_times()
    stage_ended("third", time_s=3.0)
    assert record_times()
    assert json.loads((place / COMMITTED_TIMES).read_text()) == {"first": 1.3, "second": 2.0, "third": 3.0}
    begin()
    assert not record_times(), "the times of the earlier reproduction are forgotten"


def test_a_failing_stage_ends_the_reproduction_with_one_line(place):
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True, capture_output=True)
    (place / "dvc.yaml").write_text("stages:\n  first: {cmd: exit 3}\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "diffground", "reproduce"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("1 stages; those that are up to date are skipped.\n")
    assert done.stderr.splitlines()[-1] == "error: a stage failed, see above; run the same command again to resume"
