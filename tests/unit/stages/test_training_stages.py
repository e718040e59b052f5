"""A killed training stage as DVC starts it again: what was trained is kept, and the outputs are the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from safetensors import safe_open

import diffground
from diffground.data.labelled import LabelledSample
from diffground.data.review import look_of, with_masks_of_label, write_review
from diffground.data.shards import read_samples
from diffground.reproduction.smoke import build_components
from tests.studio.studio_clone import NAMES, write_synthetic
from tests.unit.stages.test_stage import assert_one_line, call, call_anew, change, clone

__all__ = ["clone"]


def outputs(folder):
    """Segmenters and metrics, by path; then deleted, as DVC does before it runs a stage."""
    files = [path for name in ("models/segmenter", "reports/metrics") for path in (folder / name).rglob("*.*")]
    content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    shutil.rmtree(folder / "models/segmenter", ignore_errors=True)
    return content


def test_a_killed_stage_trains_finished_segmenters_no_second_time_and_ends_with_the_same_bytes(clone):
    build_components(clone / "models/smoke")
    change(
        clone,
        data={"num_train": 6, "num_val": 2},
        runtime={"checkpoint_every_s": 1e-9},
        segmenter={"training_sets": ["real_seen_only", "real_all"], "iterations": 12},
    )
    assert call(clone, "prepare_data").returncode == 0
    unfinished = clone / "models/unfinished/train_maskformer"
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    stage = subprocess.Popen([sys.executable, "stages/train_maskformer.py"], cwd=clone, env=env, stderr=subprocess.PIPE)
    while stage.poll() is None and not (unfinished / "real_all/state.safetensors").exists():
        time.sleep(0.005)
    stage.send_signal(signal.SIGKILL)
    stage.communicate()
    assert stage.returncode == -signal.SIGKILL
    assert sorted(path.name for path in unfinished.iterdir()) == ["real_all", "real_seen_only"]
    outputs(clone)

    again = call(clone, "train_maskformer")
    assert again.returncode == 0, again.stderr
    assert "train_maskformer real_seen_only:" not in again.stderr  # no step of it was left
    assert "train_maskformer real_all: 12/12" in again.stderr
    resumed = outputs(clone)
    kept = call(clone, "train_maskformer")  # as after a kill between the end of the training and DVC's commit
    assert kept.returncode == 0, kept.stderr
    assert "train_maskformer real_" not in kept.stderr
    assert outputs(clone) == resumed
    shutil.rmtree(unfinished)
    assert call(clone, "train_maskformer").returncode == 0
    undisturbed = outputs(clone)
    assert len(resumed) == 7
    assert resumed == undisturbed


def launch(folder, stage):
    """As README has it, on this machine's processors."""
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes=2",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
        "--main_process_port=0",
        f"stages/{stage}.py",
    ]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_two_processes_train_and_one_error_line_tells_what_is_wrong(clone):
    build_components(clone / "models/smoke")
    change(
        clone,
        data={"num_train": 6, "num_val": 2},
        runtime={"num_training_processes": 2, "device": "cpu", "num_threads": 1},
        segmenter={"training_sets": ["real_all"], "iterations": 2},
    )
    assert call(clone, "prepare_data").returncode == 0
    result = call_anew(clone, "train_maskformer")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("train_maskformer real_all: 2/2") == 1
    own = outputs(clone)
    assert len(own) == 4
    states = clone / "models/unfinished/train_maskformer"
    assert [path.name for path in states.rglob("*.*")] == ["state.safetensors"]
    state = json.loads(safe_open(states / "real_all/state.safetensors", "pt").metadata()["state"])
    assert {"data", "code", "transformers"} <= state["fingerprint"].keys()
    shutil.rmtree(states)
    launched = launch(clone, "train_maskformer")
    assert launched.returncode == 0, launched.stderr
    assert launched.stderr.count("train_maskformer real_all: 2/2") == 1
    assert outputs(clone) == own, "accelerate's two processes train as the stage's own do"
    change(clone, segmenter={"training_sets": ["synthetic"]})
    assert_one_line(call_anew(clone, "train_maskformer"), "data/synthetic")
    # of two processes the error may end the one that removes states before it does
    change(clone, runtime={"num_training_processes": 1})
    assert_one_line(call(clone, "train_maskformer"), "data/synthetic")
    assert list(states.iterdir()) == []  # only training sets that are asked for keep a state


def test_rejected_synthetic_samples_are_left_out_of_the_training_which_says_so(clone):
    build_components(clone / "models/smoke")
    change(clone, data={"num_train": 6, "num_val": 2}, segmenter={"training_sets": ["synthetic"], "iterations": 2})
    assert call(clone, "prepare_data").returncode == 0
    write_synthetic(clone / "data/synthetic", num=8)
    review = clone / "review/synthetic/smoke.csv"
    write_review(review, [])
    without_verdicts = call(clone, "train_maskformer")
    assert without_verdicts.returncode == 0, without_verdicts.stderr
    assert "left out" not in without_verdicts.stdout
    metrics = clone / "reports/metrics/train_maskformer.json"
    assert json.loads(metrics.read_text())["synthetic"]["num_images"] == 8

    [sample] = [s for s in read_samples(clone / "data/synthetic") if s.key == "synthesis-000003"]
    seen = with_masks_of_label(LabelledSample(sample), NAMES)
    write_review(review, [(sample.key, seen.prompt, look_of(seen), "rejected", "")])
    with_one = call(clone, "train_maskformer")
    assert with_one.returncode == 0, with_one.stderr
    assert "1 synthetic samples are left out, rejected in review/synthetic/smoke.csv" in with_one.stdout
    assert json.loads(metrics.read_text())["synthetic"]["num_images"] == 7

    (clone / "review/smoke.csv").write_text("id,prompt,look,verdict,note\n")
    expected = "review/smoke.csv: verdicts on the test set are read from review/test/smoke.csv; move the file there"
    assert_one_line(call(clone, "train_maskformer"), expected)
