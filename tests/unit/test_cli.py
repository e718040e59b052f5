"""The command as a user types it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import diffground

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    return tmp_path


def call(folder, *arguments):
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "diffground", *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_profile_mini_writes_the_committed_params(clone):
    assert call(clone, "profile", "mini").returncode == 0
    assert (clone / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A folder in which `diffground profile smoke data.num_val=3` has run, and its result."""
    folder = tmp_path_factory.mktemp("smoke")
    shutil.copytree(ROOT / "conf", folder / "conf")
    return folder, call(folder, "profile", "smoke", "data.num_val=3")


def test_profile_smoke_builds_its_components(smoke):
    folder, result = smoke
    assert (result.returncode, result.stderr) == (0, "")
    assert "num_val: 3\n" in (folder / "params.yaml").read_text()
    assert {p.name for p in (folder / "models/smoke").iterdir()} >= {"diffusion", "detector", "backbone"}


def test_a_bad_profile_leaves_params_alone(clone):
    (clone / "params.yaml").write_text("mine")
    result = call(clone, "profile", "smok")
    assert result.returncode == 2
    assert (
        result.stderr == "error: profile must be one of mini, mini_tuning, paper_coco, paper_voc, smoke, got 'smok'\n"
    )
    assert (clone / "params.yaml").read_text() == "mine"


def test_ground_without_params_says_what_to_run(tmp_path):
    result = call(tmp_path, "ground", "a photograph of a dog", "-c", "dog")
    assert result.returncode == 2
    assert result.stderr == "error: params.yaml: no such file; run `diffground profile mini` in the repository root\n"


def test_a_negative_seed_is_one_line(clone):
    result = call(clone, "ground", "a photograph of a dog", "-c", "dog", "--seed", "-1")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("--seed must not be negative, got -1")


def test_ground_reads_the_grounding_module_that_it_is_told(smoke):
    place, _ = smoke
    for arguments, folder in (([], "models/grounding"), (["--grounding", "models/released"], "models/released")):
        result = call(place, "ground", "a photograph of a dog", "-c", "dog", *arguments)
        assert result.returncode == 2
        assert f"error: {folder}: no grounding module (config.json is missing)" in result.stderr


def test_ground_asks_for_words_where_the_prompt_names_none_of_the_vocabulary(clone):
    (clone / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (clone / "models").symlink_to(ROOT / "models")
    result = call(clone, "ground", "a photograph of a unicorn")
    assert result.returncode == 2
    assert result.stderr == (
        "error: the prompt 'a photograph of a unicorn' names no word of the vocabulary; give -c/--category WORDS\n"
    )


def test_experiments_are_listed_with_their_source(clone):
    result = call(clone, "experiments", "list", "table1_*")
    lines = result.stdout.splitlines()
    assert (result.returncode, [line.split()[0] for line in lines]) == (0, ["table1_split2", "table1_split3"])
    assert all("arXiv 2301.05221, table 1" in line and line.endswith("; profiles: all") for line in lines)
    assert call(clone, "experiments", "list", "seen_20").stdout.endswith("; profiles: paper_coco\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "seen_20", "--profile", "mini"], "experiment seen_20 exists for profile paper_coco, not for 'mini'"),
        (
            ["collect", "--profile", "mimi"],
            "profile must be one of mini, mini_tuning, paper_coco, paper_voc, smoke, got 'mimi'",
        ),
    ],
)
def test_an_experiment_that_the_profile_does_not_have_is_one_line(clone, arguments, line):
    result = call(clone, "experiments", *arguments)
    assert (result.returncode, result.stderr) == (2, f"error: {line}\n")


def test_profile_takes_an_experiment(clone):
    assert call(clone, "profile", "mini", "experiment=timestep_03").returncode == 0
    before, after = ((folder / "params.yaml").read_text() for folder in (ROOT, clone))
    assert after == before.replace("tapped_step: 1\n", "tapped_step: 3\n")


def test_experiments_outside_a_repository_are_one_line(clone):
    (clone / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    result = call(clone, "experiments", "run", "seen_05")
    assert result.returncode == 2
    assert result.stderr.startswith("error: `git rev-parse --verify HEAD` failed")
    assert len(result.stderr.splitlines()) == 1
