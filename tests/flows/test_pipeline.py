"""What DVC says of a pipeline, from real runs of DVC."""

import subprocess
import sys

import pytest

from diffground.errors import UserError
from flows.pipeline import Outcome, changed_stages, read_pipeline, repro_command, unfrozen
from flows.places import PRETRAIN, ROOT


def repro(project, stage):
    outcome = Outcome()
    done = subprocess.run(
        repro_command(stage),
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        outcome.read(line)
    return done.returncode, outcome


@pytest.mark.parametrize("folder", [ROOT, PRETRAIN])
def test_a_stage_comes_after_those_that_it_depends_on(folder):
    pipeline = read_pipeline(folder)
    assert len(pipeline.stages) >= 6
    for i, stage in enumerate(pipeline.stages):
        assert set(pipeline.upstream[stage]) <= set(pipeline.stages[:i])


def test_the_order_is_that_of_dvc_repro():
    printed = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--dry", "--force"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    named = [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage '")]
    assert len(named) >= 1
    assert list(read_pipeline(ROOT).stages[: len(named)]) == named


def test_a_range_holds_what_the_last_stage_needs(project):
    pipeline = read_pipeline(project.root)
    assert sorted(pipeline.between(None, None)) == ["aside", "make", "use"]
    assert pipeline.between(None, "use") == ["make", "use"]
    assert pipeline.between("use", "use") == ["use"]
    assert pipeline.between("use", "make") == []


def test_outputs_and_frozen_stages_of_the_trainings():
    pipeline = read_pipeline(PRETRAIN)
    assert "sprites" not in pipeline.frozen and {"vae", "detector"} <= pipeline.frozen
    assert "../models/mini/diffusion/vae" in [path.as_posix() for path in pipeline.outputs["vae"]]


def test_what_changed_is_what_dvc_would_run(project):
    assert changed_stages(project.root) == {"make", "use", "aside"}
    project.dvc("repro", "--quiet")
    assert changed_stages(project.root) == set()
    project.wish("0", "0")
    assert changed_stages(project.root) == {"make"}, "use follows once make has run"


def test_a_folder_without_dvc_is_one_line(tmp_path):
    with pytest.raises(UserError, match="dvc status") as caught:
        changed_stages(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wish", "code", "temporary"),
    [("1", 1, False), ("2", 2, False), ("75", 75, True), ("130", 130, False), ("137", 137, True), ("kill", 137, True)],
)
def test_the_exit_code_is_that_of_the_stage(project, wish, code, temporary):
    project.wish(wish)
    dvc_code, outcome = repro(project, "make")
    assert dvc_code not in (0, code) or code == 1
    assert outcome.exit_code(dvc_code) == code
    assert outcome.is_temporary(dvc_code) == temporary
    assert outcome.last_error == ("told to fail with 1" if wish == "1" else "")


def test_dvc_that_is_killed_itself_may_be_tried_again():
    assert Outcome().is_temporary(137) and Outcome().is_temporary(-9)
    assert not Outcome().is_temporary(255)


def test_a_stage_that_had_nothing_to_do_says_so(project):
    code, outcome = repro(project, "make")
    assert (code, outcome.skipped) == (0, False)
    code, outcome = repro(project, "make")
    assert (code, outcome.skipped) == (0, True)


def test_a_frozen_stage_runs_inside_the_block_and_is_frozen_after_it(project):
    project.dvc("repro", "--quiet")
    project.dvc("freeze", "make")
    frozen = (project.root / "dvc.yaml").read_bytes()
    project.wish("0", "0", "0")
    assert repro(project, "make")[0] == 0
    assert project.ran() == []
    with unfrozen(project.root, ["make"]):
        assert repro(project, "make")[0] == 0
    assert project.ran() == ["make"]
    assert (project.root / "dvc.yaml").read_bytes() == frozen
