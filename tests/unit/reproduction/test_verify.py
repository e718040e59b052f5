"""`diffground verify` in a small repository with git and DVC."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from diffground.cli.main import main
from diffground.errors import UserError
from diffground.reproduction.config import load_params
from diffground.reproduction.verify import MACHINE, Difference, Machine, verify

PIPELINE = {
    "stages": {
        "second": {"cmd": "python stage.py b", "deps": ["stage.py", "a.txt"], "outs": ["b.txt"]},
        "first": {"cmd": "python stage.py a", "deps": ["stage.py"], "params": ["prompts.seed"], "outs": ["a.txt"]},
    }
}
STAGE = """
import pathlib, sys, yaml
seed = yaml.safe_load(open("params.yaml"))["prompts"]["seed"]
read = pathlib.Path("a.txt").read_text() if sys.argv[1] == "b" else str(seed)
pathlib.Path(f"{sys.argv[1]}.txt").write_text(sys.argv[1] + read)
"""
PARAMS = Path(__file__).parents[3] / "params.yaml"
OUTPUTS = ("a.txt", "b.txt")


def run(folder, *command):
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def dvc(folder, *arguments):
    run(folder, sys.executable, "-m", "dvc", *arguments)


def write_params(folder, *, seed):
    params = yaml.safe_load(PARAMS.read_text())
    params["prompts"]["seed"] = seed
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "repository"
    folder.mkdir()
    run(folder, "git", "init", "-q")
    for key, value in (("user.name", "t"), ("user.email", "t@example.org")):
        run(folder, "git", "config", key, value)
    dvc(folder, "init", "-q")
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (folder / "stage.py").write_text(STAGE)
    write_params(folder, seed=1)
    (folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE, sort_keys=False))
    (folder / "reports").mkdir()
    dvc(folder, "repro", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "reproduced")
    return folder


@pytest.fixture
def repository(made, monkeypatch):
    """Clean again after each test."""
    monkeypatch.chdir(made)
    outputs = {name: (made / name).read_bytes() for name in OUTPUTS}
    yield made
    run(made, "git", "checkout", "-q", ".")
    run(made, "git", "clean", "-qfd", "reports")
    for name, content in outputs.items():
        (made / name).write_bytes(content)


def answer(capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["verify"])
    told = capsys.readouterr()
    return ended.value.code, (told.out + told.err).splitlines()


def test_equal_outputs_are_said_to_be_equal(repository, capsys):
    assert verify() is None
    assert answer(capsys) == (0, ["all outputs equal the committed ones, byte for byte"])


def test_the_first_stage_of_the_pipeline_and_its_parameters_are_named(repository, capsys):
    write_params(repository, seed=2)
    dvc(repository, "repro", "-q")
    assert verify() == Difference("first", ("a.txt",), ("prompts.seed: 1, here 2",))
    code, lines = answer(capsys)
    assert code == 1
    expected = [
        "first difference: stage first, a.txt",
        "prompts.seed: 1, here 2",
        "the committed machine is not recorded",
    ]
    assert lines == expected


def test_what_differs_in_the_machine_is_named(repository, capsys):
    here = Machine.here(load_params(Path("params.yaml")).runtime)
    versions = {**here.versions, "torch": "1.0"}
    replace(here, processor="Model X", num_threads=9, versions=versions).record(repository / MACHINE)
    run(repository, "git", "add", "-A")
    run(repository, "git", "commit", "-qm", "of another machine")
    here.record(repository / MACHINE)  # what counts is the committed file
    (repository / "stage.py").write_text(STAGE.replace("sys.argv[1] + read", "read"))
    dvc(repository, "repro", "-q")
    code, lines = answer(capsys)
    assert code == 1
    run(repository, "git", "reset", "-q", "--hard", "HEAD~1")
    assert lines[1:] == [
        f"processor: Model X, here {here.processor}",
        f"threads: 9, here {here.num_threads}",
        f"torch: 1.0, here {here.versions['torch']}",
    ]


def test_the_machine_is_recorded(repository):
    with pytest.raises(SystemExit) as ended:
        main(["verify", "--record"])
    assert ended.value.code == 0
    recorded = json.loads((repository / MACHINE).read_text())
    assert set(recorded) == {"processor", "instruction_set", "num_threads", "num_workers", "versions"}
    assert all(recorded.values())


def test_outputs_that_are_not_up_to_date_are_not_compared(repository, capsys):
    (repository / "a.txt").write_text("by hand")
    code, lines = answer(capsys)
    assert code == 2
    assert lines == ["error: the outputs are not complete or not up to date (first, second); run `dvc repro`"]


def test_an_output_that_is_here_but_not_in_the_cache_is_compared(repository, capsys):
    cache = repository / ".dvc/cache"
    cache.rename(repository.parent / "cache")
    found = answer(capsys)
    (repository.parent / "cache").rename(cache)
    assert found == (0, ["all outputs equal the committed ones, byte for byte"])


def test_an_output_that_is_no_longer_made_is_named(repository):
    pipeline = {"stages": {"first": PIPELINE["stages"]["first"]}}
    (repository / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    lock = yaml.safe_load((repository / "dvc.lock").read_text())
    del lock["stages"]["second"]
    (repository / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert verify() == Difference("second", ("b.txt",), ())


def test_a_damaged_lock_and_a_folder_without_git_are_one_line(repository, tmp_path):
    (repository / "dvc.lock").write_text((repository / "dvc.lock").read_text()[:-40])
    with pytest.raises(UserError, match=r"dvc.lock: damaged; run `diffground recover`"):
        verify()
    with pytest.raises(UserError, match="not a git repository"):
        verify(tmp_path)


def test_without_a_committed_run_there_is_nothing_to_compare(tmp_path):
    run(tmp_path, "git", "init", "-q")
    run(tmp_path, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "x", "--allow-empty")
    with pytest.raises(UserError, match=r"dvc.lock: the last commit has none, so there is nothing to compare with"):
        verify(tmp_path)
