"""A training that was killed ends with the bytes of one that was not."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toy_trainings as toy

from diffground.errors import UserError
from diffground.reproduction.config import load_params
from diffground.runtime.processes import run_in_processes
from diffground.training.loop import Execution
from diffground.training.resume import TrainingState, training_fingerprint
from tests.warm_python import run_script

HERE = Path(__file__).parent
STATE = "state.safetensors"


def train_in_a_process(*arguments):
    script, python_path = HERE / "toy_trainings.py", [HERE.parent / "grounding"]
    return run_script(script, *map(str, arguments), cwd=HERE, python_path=python_path)


@pytest.mark.parametrize(("kind", "a_step"), [("grounding", 8), ("maskformer", 4)])
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(tmp_path, backbone, kind, a_step):
    rest = [backbone] if kind == "maskformer" else []
    state = toy.unfinished(tmp_path / "state")
    killed = train_in_a_process(kind, state.folder, tmp_path / "killed", 2 * a_step + 2, *rest)  # within step 3
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed").exists()
    left = state.load()
    assert left.values["iteration"] == 2
    assert len(left.tensors["queue"]) > 0 and len(left.tensors["recent"]) == 2
    again = train_in_a_process(kind, state.folder, tmp_path / "again", 4 * a_step + 1, *rest)
    assert again.returncode == 0, "four steps are left, and what comes after is not reached"
    undisturbed = (toy.train_grounding if rest == [] else toy.train_maskformer)(None, *rest)
    toy.write(tmp_path / "undisturbed", *undisturbed)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "undisturbed").read_bytes()


def test_a_training_that_ended_is_not_done_again(tmp_path):
    state = toy.unfinished(tmp_path, every_s=1e9)
    first, curve = toy.train_grounding(Execution(unfinished=state))
    assert state.load().values["iteration"] == toy.GROUNDING["iterations"]
    again, curve_again = toy.train_grounding(Execution(unfinished=state), last=1)  # no sample can be read
    assert not again.training
    assert (curve.iterations, curve.losses) == (curve_again.iterations, curve_again.losses)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in first.state_dict().items())


def test_states_are_left_when_they_are_due(tmp_path):
    with pytest.raises(toy.StoppedError):
        toy.train_grounding(Execution(unfinished=toy.unfinished(tmp_path, every_s=1e9)), last=30)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(toy.StoppedError):
        toy.train_grounding(Execution(unfinished=toy.unfinished(tmp_path)), last=30)
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_processes_that_find_different_states_say_so_in_one_line(tmp_path):
    with pytest.raises(
        UserError, match=r"machine_\d: .* iterations 0 and 3; put the repository on a filesystem that all"
    ):
        run_in_processes(2, toy.go_on_from_different_states, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["machine_0"]


SOME = TrainingState(
    tensors={"weights": torch.arange(6.0).view(2, 3), "step": torch.tensor(7.0), "none": torch.zeros(0)},
    values={"iteration": 3, "losses": [0.1, 1 / 3]},
)


def test_what_is_saved_is_loaded(tmp_path):
    toy.unfinished(tmp_path / "a" / "b").save(SOME)
    loaded = toy.unfinished(tmp_path / "a" / "b").load()
    assert loaded.values == SOME.values
    assert loaded.tensors.keys() == SOME.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in SOME.tensors.items())
    toy.unfinished(tmp_path / "a" / "b").remove()
    assert toy.unfinished(tmp_path / "a" / "b").load() is None


def test_the_state_of_another_training_is_dropped_with_one_line(tmp_path, caplog):
    toy.unfinished(tmp_path / "state").save(SOME)
    assert toy.unfinished(tmp_path / "state", seed=1).load() is None
    assert not (tmp_path / "state").exists()
    [line] = caplog.messages
    assert "\n" not in line
    assert line.startswith(f"{tmp_path / 'state' / STATE}: is of a training with other seed; it is deleted")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_state_is_dropped_with_one_line(tmp_path, caplog, damage):
    state = toy.unfinished(tmp_path / "state")
    state.save(SOME)
    path = state.folder / STATE
    content = bytearray(path.read_bytes())
    content[-9] ^= 1  # in the tensors
    path.write_bytes({"cut": content[:-4], "flipped": content, "empty": b"", "foreign": b"{}" * 50}[damage])
    assert state.load() is None
    assert not state.folder.exists()
    [line] = caplog.messages
    assert "\n" not in line
    assert "is damaged" in line


def test_a_state_replaces_the_one_before_as_a_whole(tmp_path, monkeypatch):
    state = toy.unfinished(tmp_path)
    state.save(SOME)
    monkeypatch.setattr(Path, "replace", lambda *_: os.abort)  # the process is killed just before
    state.save(TrainingState(tensors={}, values={"iteration": 4}))
    assert state.load().values["iteration"] == 3


def test_what_killed_processes_left_behind_is_cleared_away(tmp_path):
    state = toy.unfinished(tmp_path)
    (tmp_path / f"{STATE}.123456789.partial").write_bytes(b"half")
    state.save(SOME)
    assert [path.name for path in tmp_path.iterdir()] == [STATE]


def test_of_several_processes_only_the_main_one_reads_the_data(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    unreadable = [tmp_path / "not a path\0"]
    assert training_fingerprint(code="diffground.x", parameters={}, data=unreadable, device=torch.device("cpu")) == {}


def test_a_fingerprint_tells_parameters_data_code_and_device(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"1")
    section = load_params(HERE.parents[2] / "params.yaml").segmenter

    def fingerprint(**changes):
        arguments = {
            "code": "diffground.grounding.fit",
            "parameters": {"x": section},
            "data": [tmp_path],
            "device": torch.device("cpu"),
        }
        return training_fingerprint(**{**arguments, **changes})

    before = fingerprint()
    assert before == fingerprint()
    assert before != fingerprint(code="diffground.segmentation.protocol2")
    assert before != fingerprint(parameters={"x": replace(section, seed=1)})
    assert before != fingerprint(device=torch.device("cuda"))
    (tmp_path / "a.tar").write_bytes(b"2")
    assert before != fingerprint()
