"""Exit codes and messages. A full disk is a real one: a write limit of the kernel, or /dev/full."""

import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import diffground
from diffground.data.shards import Sample, read_shard, write_shard
from diffground.entry_point import NO_TELEMETRY, TEMPORARY_FAILURE, is_full_disk, run_entry_point
from diffground.errors import InfrastructureError, UserError
from diffground.prompts import PromptRecord, write_prompts

LIMIT = 16384  # bytes; an empty tar has 10240 bytes


def run(action, resume_with="dvc repro generate"):
    return run_entry_point(action, resume_with=resume_with)


@pytest.fixture
def small_disk():
    """No file may grow beyond LIMIT bytes: a write fails with EFBIG."""
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, previous[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, previous)
    signal.signal(signal.SIGXFSZ, handler)


def assert_full_disk(capsys, action):
    assert run(action) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("error: no space left to write")
    assert message.endswith("free some, then run `dvc repro generate`\n")


def test_success_is_0():
    assert run(lambda: None) == 0


def test_tools_send_no_usage_statistics_unless_the_user_allows_it(monkeypatch):
    for name in NO_TELEMETRY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "")
    seen = {}
    assert run(lambda: seen.update(os.environ)) == 0
    assert {name: seen[name] for name in NO_TELEMETRY} == {**NO_TELEMETRY, "DVC_NO_ANALYTICS": ""}


def test_a_user_error_is_one_line_and_2(capsys):
    def action():
        raise UserError("generator.num_steps must be at least 1, got 0 (params.yaml)")

    assert run(action) == 2
    assert capsys.readouterr().err == "error: generator.num_steps must be at least 1, got 0 (params.yaml)\n"


def test_what_a_later_try_may_get_over_is_75(capsys):
    def action():
        raise InfrastructureError("a worker process was killed; lower runtime.num_workers")

    assert run(action) == TEMPORARY_FAILURE == os.EX_TEMPFAIL
    assert capsys.readouterr().err == "error: a worker process was killed; lower runtime.num_workers\n"


def too_large_for_numpy():
    np.ones(2**50)


def too_large_for_torch():
    torch.ones(2**50)


def too_large_for_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation")


def too_many_for_their_stacks():
    raise RuntimeError("can't start new thread")  # as threading does where memory or threads are used up


@pytest.mark.parametrize(
    "action", [too_large_for_numpy, too_large_for_torch, too_large_for_a_gpu, too_many_for_their_stacks]
)
def test_no_memory_left_is_one_line_and_75(capsys, action):
    assert run(action) == TEMPORARY_FAILURE
    message = capsys.readouterr().err
    assert message.startswith("error: out of memory: ")
    assert message.count("\n") == 1
    assert "`dvc repro generate`" in message


def test_ctrl_c_says_how_to_go_on(capsys):
    def action():
        raise KeyboardInterrupt

    assert run(action) == 130
    assert "`dvc repro generate` resumes from here" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


def test_a_shard_that_does_not_fit_leaves_the_others(tmp_path, small_disk, capsys):
    write_shard(tmp_path / "000000.tar", [Sample(key="a", members={"x.png": b"x"})])
    large = [Sample(key="b", members={"x.png": b"x" * LIMIT})]
    assert_full_disk(capsys, lambda: write_shard(tmp_path / "000001.tar", large))
    assert [p.name for p in tmp_path.iterdir()] == ["000000.tar"]
    assert [sample.key for sample in read_shard(tmp_path / "000000.tar")] == ["a"]


def test_prompts_that_do_not_fit_leave_the_old_ones(tmp_path, capsys, request):
    record = PromptRecord("a", "p", ("dog",), "one_unseen", 1, "template")
    path = tmp_path / "train.jsonl"
    write_prompts(path, [record])
    before = path.read_bytes()
    request.getfixturevalue("small_disk")
    assert_full_disk(capsys, lambda: write_prompts(path, [record] * 1000))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]


def test_weights_that_do_not_fit(tmp_path, small_disk, capsys):
    from safetensors.numpy import save_file

    weights = {"w": np.zeros(LIMIT, dtype=np.float32)}
    assert_full_disk(capsys, lambda: save_file(weights, tmp_path / "model.safetensors"))


def test_a_tracking_database_that_does_not_fit(tmp_path, capsys):
    def action():
        database = sqlite3.connect(tmp_path / "mlflow.db")
        database.execute("pragma max_page_count = 3")  # SQLite says of this what it says of ENOSPC
        database.execute("create table t (x blob)")
        database.execute("insert into t values (zeroblob(100000))")
        database.commit()

    assert_full_disk(capsys, action)


def test_a_full_device(capsys):
    def action():
        with Path("/dev/full").open("wb", buffering=0) as device:
            device.write(b"x")

    assert_full_disk(capsys, action)


def test_an_error_of_another_kind_is_no_full_disk():
    assert not is_full_disk(PermissionError(13, "Permission denied"))
    assert not is_full_disk(ValueError("disk"))


def test_a_process_exits_with_the_code(tmp_path):
    script = (
        "import sys; from diffground.entry_point import run_entry_point; from diffground.errors import UserError\n"
        "def action(): raise UserError('bad')\n"
        "sys.exit(run_entry_point(action, resume_with='x'))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    result = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "error: bad\n")


@pytest.mark.parametrize("name", ["diffground.no_such_module", "dvc.no_such_module", "no_such_package"])
def test_a_missing_module_that_the_extra_would_not_bring_is_a_bug(name):
    with pytest.raises(ModuleNotFoundError):
        run(lambda: import_module(name))


def test_the_log_of_the_package_goes_to_stderr_only_while_a_command_runs(capsys, caplog):
    logger = logging.getLogger("diffground.somewhere")

    def action():
        logger.info("a fact")
        logger.warning("a doubt")

    assert run(action) == 0
    assert capsys.readouterr() == ("", "a fact\nwarning: a doubt\n")
    logger.info("another fact")
    assert capsys.readouterr().err == ""
