"""A disk that fills up, and two reproductions at once."""

import os
import signal
import subprocess
import time

import pytest

from tests.pipeline.conftest import smoke_repository

SMALL, LARGE = "size=48k", "size=64m"


@pytest.fixture(scope="module")
def repository(tmp_path_factory, components):
    made = smoke_repository(
        tmp_path_factory.mktemp("misfortunes"),
        components=components,
        overrides=["tracking.enabled=false", "generator.shard_size=2", "generator.num_steps=12"],
    )
    made.run("dvc", "repro", "sample_prompts")
    return made


@pytest.fixture
def small_disk(repository):
    """A tmpfs where `generate` writes; remounting it makes space."""
    folder = repository.root / "data/generated"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL, "none", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
    folder.rmdir()


def test_a_full_disk_is_one_line_and_what_is_finished_is_kept(repository, small_disk):
    process = repository.start("dvc", "repro", "generate")
    output, _ = process.communicate()
    assert process.returncode != 0
    told = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and told[0].startswith("error: no space left to write: ")
    assert told[0].endswith("free some, then run `dvc repro generate`")
    assert "Traceback" not in output
    finished = {path: path.stat().st_mtime_ns for path in small_disk.glob("*/*.tar")}
    assert finished
    assert not list(small_disk.glob("*/*.partial"))
    subprocess.run(["mount", "-o", f"remount,{LARGE}", small_disk], check=True)
    repository.run("dvc", "repro", "generate")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert len(list(small_disk.glob("*/*.tar"))) > len(finished)


def test_the_second_of_two_reproductions_names_the_first(repository):
    first = repository.start("dvc", "repro", "--force", "generate")
    try:
        while not list(repository.root.glob("data/generated/*/*.tar")):
            assert first.poll() is None
            time.sleep(0.01)
        second = repository.start("dvc", "repro", "generate")
        output, _ = second.communicate()
        assert second.returncode != 0
        assert f"(PID {first.pid})" in output and "Traceback" not in output
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
