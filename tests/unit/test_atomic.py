"""A file is there whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import diffground
from diffground.atomic import atomic_file, write_atomically

KILLED = """
import os, signal
from pathlib import Path
from diffground.atomic import atomic_file
with atomic_file(Path("out.txt")) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_text_is_written_as_it_is_into_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "out.txt"
    write_atomically(path, "é\r\nb\n")
    assert path.read_bytes() == b"\xc3\xa9\r\nb\n"
    assert [p.name for p in path.parent.iterdir()] == ["out.txt"]


def test_until_the_end_the_old_file_stands(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with atomic_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.name == f"out.txt.{os.getpid()}.partial"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("begun", [True, False])
def test_after_an_exception_the_old_file_stands_alone(tmp_path, begun):
    path = tmp_path / "out.txt"
    path.write_text("old")

    def stop() -> None:
        with atomic_file(path) as partial:
            if begun:
                partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env=env, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    write_atomically(path, "new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_umask_decides_who_may_read_a_file_whoever_wrote_it(tmp_path, umask, mode):
    weights, text = tmp_path / "model.safetensors", tmp_path / "config.json"
    before = os.umask(umask)
    try:
        with atomic_file(weights) as partial:
            save_file({"weight": torch.zeros(2)}, partial)
        write_atomically(text, "{}")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (weights, text)] == [mode, mode]
