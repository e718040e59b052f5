"""params.yaml is composed for a run, and what somebody wrote into it is not lost."""

import shutil
import subprocess

import pytest

import flows.parameters
from diffground.errors import UserError
from diffground.reproduction.composition import compose_params
from flows.choices import EXPERIMENTS, PROFILES
from flows.parameters import set_parameters
from flows.places import ROOT


@pytest.fixture
def repository(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    monkeypatch.setattr(flows.parameters, "ROOT", tmp_path)
    monkeypatch.setattr(flows.parameters, "_CONF", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(compose_params("mini", conf=tmp_path / "conf"))
    return tmp_path


def composed(profile, *overrides):
    return compose_params(profile, conf=ROOT / "conf", overrides=overrides)


def test_without_a_profile_it_stays_as_it_is(repository):
    (repository / "params.yaml").write_text("edited: true\n")
    set_parameters(None, None, on_line=print)
    assert (repository / "params.yaml").read_text() == "edited: true\n"


def test_what_is_composed_already_is_not_written_again(repository):
    before = (repository / "params.yaml").stat().st_mtime_ns
    set_parameters("mini", None, on_line=print)
    assert (repository / "params.yaml").stat().st_mtime_ns == before


def test_another_experiment_replaces_a_composition(repository):
    said = []
    set_parameters("mini", "timestep_02", on_line=said.append)
    assert (repository / "params.yaml").read_text() == composed("mini", "experiment=timestep_02")
    set_parameters(None, "timestep_03", on_line=said.append)
    assert (repository / "params.yaml").read_text() == composed("mini", "experiment=timestep_03")
    assert said == ["params.yaml: profile 'mini'"] * 2


def test_an_edited_file_is_not_thrown_away(repository):
    path = repository / "params.yaml"
    edited = path.read_text().replace("profile: mini", "profile: mini # mine")
    path.write_text(edited)
    with pytest.raises(UserError, match=r"^params.yaml holds values that neither git nor conf/ has; "):
        set_parameters("paper_voc", None, on_line=print)
    assert path.read_text() == edited
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "add", "params.yaml"], cwd=repository, check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "-m", "mine"], cwd=repository, check=True)
    set_parameters("paper_voc", None, on_line=print)
    assert path.read_text() == composed("paper_voc")


def test_the_choices_are_the_files_of_conf():
    assert {"mini", "smoke", "paper_voc", "paper_coco"} <= set(PROFILES)
    assert {"seen_05", "table2_model_a"} <= set(EXPERIMENTS)
