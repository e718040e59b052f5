"""Several processes of one training: how many, how they are connected, and that they end together."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from work_for_processes import add_up, fail_alone, fail_together

import diffground
from diffground.errors import UserError
from diffground.reproduction.config import load_params
from diffground.runtime.processes import num_training_processes, run_in_processes
from tests.unit.runtime.test_workers import is_alive, wait_until

RUNTIME = replace(load_params(Path(__file__).parents[3] / "params.yaml").runtime, device="cpu")


def test_processes_are_connected_and_one_of_them_speaks(tmp_path, capfd):
    run_in_processes(2, add_up, str(tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "3.0", "1": "3.0"}
    out, err = capfd.readouterr()
    assert (out, err.count("to stderr")) == ("process 0 is the main one: True\n", 1)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("user", UserError, r"^data/synthetic: no shards$"),
        ("bug", ZeroDivisionError, "1 / 0"),
        ("killed", UserError, r"a training process was killed \(out of memory\?\), exit code -9; run the same"),
    ],
)
def test_one_that_fails_ends_all_and_its_error_is_told(kind, error, message, capfd):
    start = time.monotonic()
    with pytest.raises(error, match=message):
        run_in_processes(2, fail_alone, kind)
    assert time.monotonic() - start < 100
    assert "Traceback" not in capfd.readouterr().err


def test_the_same_error_of_all_is_raised_once():
    with pytest.raises(UserError, match=r"^data/synthetic: no shards$"):
        run_in_processes(2, fail_together)


def test_processes_end_with_a_killed_parent(tmp_path):
    code = (
        "from diffground.runtime.processes import run_in_processes\n"
        "from work_for_processes import wait_forever\n"
        f"if __name__ == '__main__': run_in_processes(2, wait_forever, {str(tmp_path)!r})\n"
    )
    (tmp_path / "parent.py").write_text(code)
    path = os.pathsep.join([str(Path(diffground.__file__).parents[1]), str(Path(__file__).parent)])
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], env={**os.environ, "PYTHONPATH": path})
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert all(map(is_alive, pids))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize(
    ("asked", "device", "gpus", "expected"),
    [
        (0, "cpu", 0, 1),
        (2, "cpu", 0, 2),
        (0, "auto", 4, 4),
        (0, "auto", 3, 2),
        (0, "auto", 7, 4),
        (2, "cuda", 4, 2),
        (0, "cuda:1", 4, 1),
        (0, "cuda", 1, 1),
    ],
)
def test_as_many_processes_as_gpus_that_fit_the_batch_unless_a_number_is_given(
    monkeypatch, asked, device, gpus, expected
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    runtime = replace(RUNTIME, device=device, num_training_processes=asked)
    assert num_training_processes(runtime, batch_size=16, accumulation_steps=2) == expected


def test_more_processes_than_gpus_or_samples_are_one_line(monkeypatch):
    three = replace(RUNTIME, num_training_processes=3)
    with pytest.raises(UserError, match=r"must be a multiple of .* \(3 x 1\), got 16; change one of the three"):
        num_training_processes(three, batch_size=16, accumulation_steps=1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UserError, match=r"at most the number of GPUs of runtime.device 'cuda' \(2\), got 3"):
        num_training_processes(replace(three, device="cuda"), batch_size=18, accumulation_steps=1)
