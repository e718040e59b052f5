"""Experiments on a real git and DVC repository with trivial stages. The tests of this file follow on each other."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest

from diffground.errors import UserError
from diffground.experiments.collect import collect_experiments, find_records
from diffground.experiments.run import FOLDER, run_experiments
from diffground.report.experiments import Setup, read_records
from diffground.reproduction.catalogue import read_catalogue, vary
from diffground.reproduction.commands import DVC_TEMPORARY, alone, check_dvc_is_idle, experiment_commits
from diffground.reproduction.lock_file import read_stages


@pytest.fixture(scope="module")
def failed(repository):
    """After a run in which `generate` of timestep_02 failed at its second shard."""
    before = repository.state()
    repository.new_log_lines()
    printed, error = repository.run("timestep_02", "training_normal", fail="generate")
    return {
        "printed": printed,
        "error": error,
        "log": repository.new_log_lines(),
        "unchanged": repository.state() == before,
    }


@pytest.fixture(scope="module")
def finished(repository, failed):
    """After the same command again, with nothing that fails; a commit to something else came between."""
    (repository.root / "README.md").write_text("words\n")
    repository.commit("words")
    before = repository.state()
    printed, error = repository.run("timestep_02", "training_normal")
    return {
        "printed": printed,
        "error": error,
        "log": repository.new_log_lines(),
        "unchanged": repository.state() == before,
    }


def test_a_failing_experiment_stops_no_other_and_is_named_at_the_end(failed):
    assert failed["error"] == ("1 of 2 experiments failed: timestep_02; run the same command again to resume them")
    assert "== timestep_02: failed: a stage ended with an error" in failed["printed"]
    assert "== training_normal: finished\n" in failed["printed"]


def test_stages_of_unchanged_inputs_do_not_run_again(failed):
    assert [line for line in failed["log"] if line.startswith("training_normal")] == [
        "training_normal: evaluate_grounding 0",
        "training_normal: evaluate_grounding 1",
    ], "generate is the default run's, and evaluate_zs3 comes after the target"


def test_the_queue_goes_on_where_it_stopped(failed, finished):
    assert failed["log"][0] == "timestep_02: generate shard 0"
    assert finished["error"] is None
    assert finished["log"] == [
        "timestep_02: generate shard 1",
        "timestep_02: generate shard 2",
        "timestep_02: evaluate_grounding 0",
        "timestep_02: evaluate_grounding 1",
    ]
    assert "== timestep_02: finished\n" in finished["printed"]


def test_what_is_finished_stays_so_after_a_commit_to_something_else(finished):
    assert "== training_normal: finished before; nothing that it depends on has changed\n" in finished["printed"]


def test_the_workspace_is_as_it_was_and_nothing_is_left_behind(repository, failed, finished):
    assert failed["unchanged"] and finished["unchanged"]
    assert repository.call("git", "status", "--porcelain") == ""
    assert [path.name for path in (repository.root / FOLDER).iterdir()] == []


def test_clones_log_where_the_repository_does(repository, finished):
    stores = repository.log.with_name("log.txt.stores").read_text().split()
    assert set(stores) == {"none", f"sqlite:///{repository.root}/mlflow.db"}, "the default run's is in its params.yaml"


def test_dvc_shows_them_as_its_experiments(repository, finished):
    listed = repository.dvc("exp", "list", "--all-commits", "--name-only")
    assert {"timestep_02", "training_normal"} <= set(listed.split())


def test_what_is_finished_is_not_run_again(repository, finished):
    printed, error = repository.run("timestep_02")
    assert (error, repository.new_log_lines()) == (None, [])
    assert "== timestep_02: finished before\n" in printed


def test_an_experiment_that_changes_nothing_is_the_default_run(repository, finished):
    shutil.rmtree(repository.root / "data")  # as in a fresh clone, which has the committed results but no outputs
    printed, error = repository.run("timestep_01")
    repository.dvc("checkout")
    assert (error, repository.new_log_lines()) == (None, [])
    assert "== timestep_01: has the settings of the committed default run, and so its results\n" in printed
    (record,) = find_records(repository.experiments("timestep_01"), profile="mini", root=repository.root).values()
    assert record.commit == repository.call("git", "log", "-1", "--format=%H", "--", "dvc.lock").strip()
    assert (record.changed, "evaluate_grounding" in record.metrics) == ({}, True)
    assert record.metrics["evaluate_grounding"]["grounding"] == {"one_seen": 10.0}


def test_only_the_stages_after_a_change_run_again(repository, finished):
    (repository.root / "notes.txt").write_text("other notes\n")
    repository.commit("other notes, which evaluate_grounding reads")
    _, error = repository.run("timestep_02")
    assert error is None
    assert repository.new_log_lines() == ["timestep_02: evaluate_grounding 0", "timestep_02: evaluate_grounding 1"]


def test_changed_code_counts_once_it_is_committed(repository, finished):
    (repository.root / "stage.py").write_text((repository.root / "stage.py").read_text() + "# another\n")
    printed, error = repository.run("timestep_02")
    assert "warning: uncommitted changes are not used" in printed
    assert (error, repository.new_log_lines()) == (None, [])
    repository.commit("another stage.py")
    printed, error = repository.run("timestep_02")
    assert error is None
    assert repository.new_log_lines() == [], "generate runs again, and finds that its shards are complete"
    assert "== timestep_02: finished\n" in printed


def test_collect_writes_what_ran_with_the_experiments_parameters(repository, finished):
    repository.dvc("exp", "run", "--quiet", "-n", "table2_model_a", "-S", "experiment=table2_model_a", "evaluate_zs3")
    repository.dvc("exp", "run", "--quiet", "-n", "timestep_03", "-S", "experiment=timestep_03", "generate")
    repository.call("git", "checkout", "--quiet", ".")
    chosen = repository.experiments("timestep_0[234]", "training_normal", "table2_model_a")
    written = collect_experiments(chosen, profile="mini", root=repository.root)
    folder = repository.root / "reports/experiments"
    assert written == {
        **{name: folder / f"{name}.json" for name in ("timestep_02", "training_normal", "table2_model_a")},
        "timestep_03": None,  # stopped before its target
        "timestep_04": None,  # was not run
    }
    records = {record.experiment: record for record in read_records(folder)}
    assert set(records) == {"timestep_02", "training_normal", "table2_model_a"}

    content = hashlib.sha256(b"{}").hexdigest()
    digest = hashlib.sha256(f"config.json\0{content}\n".encode()).hexdigest()
    for record in records.values():
        assert record.setup == Setup(profile="mini", checkpoint="models/mini/diffusion", sha256=digest)
        assert record.commit in repository.call("git", "rev-list", "HEAD").split()
        assert record.params["generator.num_steps"] == 6
        assert not [key for key in record.params if key.startswith(("runtime", "tracking"))]

    timestep, normal, model_a = (records[name] for name in ("timestep_02", "training_normal", "table2_model_a"))
    assert set(timestep.inputs) == {"evaluate_grounding", "generate"}
    assert timestep.inputs.items() <= model_a.inputs.items(), "other commits, the same code"
    assert not set(timestep.inputs.values()) & set(normal.inputs.values()), "stage.py and notes.txt changed between"
    assert timestep.changed == {"generator.tapped_step": 2}
    assert list(timestep.metrics) == ["evaluate_grounding"], "evaluate_zs3 there is the default run's"
    assert timestep.metrics["evaluate_grounding"]["grounding"] == {"one_seen": 20.0}
    assert normal.metrics["evaluate_grounding"]["grounding"] == {"one_seen": 10.0}
    assert normal.metrics["evaluate_grounding"]["type"] == "normal"
    assert set(model_a.metrics) == {"evaluate_grounding", "evaluate_zs3"}
    assert model_a.metrics["evaluate_zs3"]["sets"] == ["synthetic"]


def test_collecting_again_changes_no_byte(repository, finished):
    chosen = repository.experiments("timestep_02")
    path = collect_experiments(chosen, profile="mini", root=repository.root)["timestep_02"]
    before = path.read_bytes()
    collect_experiments(chosen, profile="mini", root=repository.root)
    assert path.read_bytes() == before
    assert json.loads(before)["experiment"] == "timestep_02"


def test_a_dvc_command_at_work_is_one_line(tmp_path):
    lock = tmp_path / DVC_TEMPORARY / "rwlock"
    lock.parent.mkdir(parents=True)
    check_dvc_is_idle(tmp_path)
    holder = {"pid": os.getpid(), "cmd": "dvc repro"}
    lock.write_text(json.dumps({"write": {"data": holder}, "read": {}}))
    with pytest.raises(UserError, match=rf"^a DVC command is running here \(dvc repro, process {os.getpid()}\);"):
        check_dvc_is_idle(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    lock.write_text(json.dumps({"write": {}, "read": {"data": [{"pid": int(ended.stdout), "cmd": "dvc repro"}]}}))
    check_dvc_is_idle(tmp_path)


def test_a_dvc_command_between_two_stages_is_seen_too(tmp_path):
    zc_lockfile = pytest.importorskip("zc.lockfile", reason="what DVC locks with")
    (tmp_path / DVC_TEMPORARY).mkdir(parents=True)
    held = zc_lockfile.LockFile(str(tmp_path / DVC_TEMPORARY / "lock"))
    with pytest.raises(UserError, match=r"^a DVC command is running here"):
        check_dvc_is_idle(tmp_path)
    held.close()
    check_dvc_is_idle(tmp_path)


def test_an_unknown_profile_ends_before_anything_is_cloned(repository):
    with pytest.raises(UserError, match=r"profile must be one of .*mini.*, got 'mimi'"):
        run_experiments([], profile="mimi", root=repository.root)


def test_the_same_experiment_twice_at_once_is_one_line(tmp_path):
    folder = tmp_path / "seen_05"
    with alone(folder), pytest.raises(UserError, match=r"^another process is running 'seen_05'"):  # noqa: SIM117
        with alone(folder):
            pass
    with alone(folder), alone(tmp_path / "seen_10"):
        pass


def test_an_experiment_whose_process_was_killed_can_be_run_again(tmp_path):
    folder = tmp_path / "seen_05"
    hold = "import sys, time; from pathlib import Path; from diffground.reproduction.commands import alone\n"
    hold += "with alone(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is running 'seen_05'"), alone(folder):
            pass
        holder.kill()
    with alone(folder):
        pass


def test_overrides_make_an_experiment_of_their_own(repository, finished):
    step, normal = "generator.tapped_step=2", "grounding.training_type=normal"
    varied = [vary(None, [step], target="evaluate_grounding"), vary(read_catalogue()["training_normal"], [step])]
    repository.new_log_lines()
    _, error = repository.run_all(varied)
    assert error is None
    assert {line.split(":")[0] for line in repository.new_log_lines()} == {experiment.name for experiment in varied}
    records = find_records(varied, profile="mini", root=repository.root)
    alone_, both = (records[experiment.name] for experiment in varied)
    assert alone_.changed == {"generator.tapped_step": 2}
    assert both.changed == {"generator.tapped_step": 2, "grounding.training_type": "normal"}
    assert vary(None, [step]).name != vary(None, [normal]).name


@pytest.fixture
def other_processor(repository, monkeypatch):
    """The default run was reproduced on a processor that gives other bytes: dvc.lock differs from the committed one."""
    monkeypatch.setitem(repository.environment, "PROCESSOR", "other")
    repository.dvc("repro", "--quiet", "--force")
    repository.new_log_lines()
    yield
    repository.call("git", "checkout", "--quiet", ".")
    repository.dvc("checkout", "--quiet", "--force")


def saved_lock(repository, experiment):
    """The stages in dvc.lock of a finished experiment."""
    commit, _ = experiment_commits(cwd=repository.root)[experiment.name]
    return read_stages(repository.call("git", "show", f"{commit}:dvc.lock"))


def test_experiments_start_from_the_workspaces_own_results(repository, finished, other_processor):
    assert "dvc.lock" in repository.call("git", "status", "--porcelain")
    before = repository.state()
    experiment = vary(None, ["grounding.training_type=normal", "grounding.seed=5"], target="evaluate_grounding")
    printed, error = repository.run_all([experiment])
    assert error is None and "uncommitted changes" not in printed
    steps = [line.partition(": ")[2] for line in repository.new_log_lines()]
    assert steps == ["evaluate_grounding 0", "evaluate_grounding 1"], "generate is that of the workspace"
    assert repository.state() == before
    own = read_stages((repository.root / "dvc.lock").read_text())
    assert saved_lock(repository, experiment)["generate"] == own["generate"]

    (repository.root / "README.md").write_text("other words\n")
    repository.call("git", "commit", "--quiet", "--message", "other words", "README.md")
    printed, error = repository.run_all([experiment])
    assert (error, repository.new_log_lines()) == (None, [])
    assert "finished before; nothing that it depends on has changed" in printed


def test_results_of_uncommitted_code_are_not_used(repository, finished, other_processor):
    (repository.root / "notes.txt").write_text("notes that are not committed\n")
    repository.dvc("repro", "--quiet")
    repository.new_log_lines()
    experiment = vary(None, ["segmenter.training_sets=[synthetic]"], target="evaluate_zs3")
    _, error = repository.run_all([experiment])
    assert error is None
    steps = [line.partition(": ")[2] for line in repository.new_log_lines()]
    assert steps == ["evaluate_zs3 0", "evaluate_zs3 1"], "what does not read the notes is that of the workspace"
    notes = repository.call("git", "show", "HEAD:notes.txt")
    deps = {dep["path"]: dep["md5"] for dep in saved_lock(repository, experiment)["evaluate_grounding"]["deps"]}
    assert deps["notes.txt"] == hashlib.md5(notes.encode()).hexdigest()


def test_the_tiny_repository_knows_the_real_experiments(repository):
    assert len(read_catalogue(repository.root / "conf/experiment")) >= 20
