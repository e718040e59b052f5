"""The chosen profile stays chosen for `dvc exp run`, and a params.yaml that was edited is kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import diffground
from diffground.reproduction.choice import CHOSEN, choose, compose_root, keep_edited, root_config
from diffground.reproduction.composition import compose_params

ROOT = Path(__file__).parents[3]
PIPELINE = """\
stages:
  generate:
    cmd: python -c "open('out.txt', 'w').write('x')"
    params: [generator.num_steps]
    outs: [out.txt]
"""


class Repository:
    """This one's conf/ and DVC configuration, with one stage that does nothing."""

    def __init__(self, root):
        self.root = root

    def initialise(self):
        root = self.root
        shutil.copytree(ROOT / "conf", root / "conf", ignore=shutil.ignore_patterns("chosen.yaml", "__pycache__"))
        (root / "models/smoke").mkdir(parents=True)  # a folder that is there is not built
        (root / "dvc.yaml").write_text(PIPELINE)
        (root / "params.yaml").write_text(compose_params("mini", conf=root / "conf"))
        shutil.copyfile(ROOT / ".gitignore", root / ".gitignore")
        self.call("git", "init", "--quiet")
        self.call("git", "config", "user.name", "tester")
        self.call("git", "config", "user.email", "tester@example.org")
        self.call(sys.executable, "-m", "dvc", "init", "--quiet")
        shutil.copyfile(ROOT / ".dvc/config", root / ".dvc/config")
        self.call("git", "add", "--all")
        self.call("git", "commit", "--quiet", "--message", "start")

    def call(self, *command):
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))}
        environment["PYTHONPATH"] = str(Path(diffground.__file__).parents[1])
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done

    def profile(self, *arguments):
        return self.call(sys.executable, "-m", "diffground", "profile", *arguments)

    def exp_run(self, *arguments):
        return self.call(sys.executable, "-m", "dvc", "exp", "run", *arguments)

    def params(self):
        return yaml.safe_load((self.root / "params.yaml").read_text())


@pytest.fixture(scope="module")
def initialised(tmp_path_factory):
    root = tmp_path_factory.mktemp("initialised")
    Repository(root).initialise()
    return root


@pytest.fixture
def repository(tmp_path, initialised):
    return Repository(shutil.copytree(initialised, tmp_path / "repository"))


@pytest.fixture
def conf(tmp_path):
    return shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("chosen.yaml"))


def test_dvc_exp_run_keeps_the_chosen_profile_and_its_overrides(repository):
    repository.profile("smoke", "generator.num_steps=4", "split=pascal_split2", "vocabulary.pairs=data")
    chosen = repository.params()
    repository.exp_run()
    assert repository.params() == chosen
    assert (chosen["profile"], chosen["generator"]["num_steps"]) == ("smoke", 4)
    repository.exp_run("-S", "experiment=timestep_03", "-S", "generator.batch_size=2")
    varied = repository.params()
    assert (varied["profile"], varied["generator"]["tapped_step"], varied["generator"]["batch_size"]) == ("smoke", 3, 2)
    assert varied["vocabulary"] == chosen["vocabulary"]
    repository.profile("mini")
    repository.exp_run()
    assert repository.params() == yaml.safe_load((ROOT / "params.yaml").read_text())
    assert repository.call("git", "status", "--porcelain", "conf", "params.yaml.bak").stdout == ""


def test_dvc_exp_run_says_what_it_replaces_and_keeps_it(repository):
    path = repository.root / "params.yaml"
    edited = path.read_text().replace("guidance_scale: 3.5", "guidance_scale: 7.25")
    path.write_text(edited)
    said = repository.exp_run().stderr
    assert said.count("generator.guidance_scale=7.25") == 1
    assert "the file is kept as params.yaml.bak" in said
    assert repository.params()["generator"]["guidance_scale"] == 3.5
    assert (repository.root / "params.yaml.bak").read_text() == edited


def test_profile_says_what_it_replaces_and_keeps_it(repository):
    path = repository.root / "params.yaml"
    edited = path.read_text().replace("guidance_scale: 3.5", "guidance_scale: 7.25")
    path.write_text(edited)
    assert "replaced (generator.guidance_scale=7.25)" in repository.profile("smoke").stderr
    assert (repository.root / "params.yaml.bak").read_text() == edited
    assert repository.profile("mini").stderr == "", "nothing was edited since"


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["experiment=timestep_03"],
        ["split=pascal_split2", "vocabulary.unseen=[cat,dog]", "grounding.iterations=7"],
        ["generator.loras=['a b.safetensors:0.5']", "tracking.uri='sqlite:///a b.db'"],
    ],
)
def test_the_root_config_composes_to_the_same_parameters(conf, overrides):
    composed = compose_params("mini", conf=conf, overrides=overrides)
    (conf / "chosen.yaml").write_text(root_config("mini", overrides, conf=conf))
    assert compose_root(CHOSEN, conf=conf) == yaml.safe_load(composed)


def test_an_override_that_cannot_be_kept_is_reported_and_the_profile_stays(conf):
    overrides = ["++generator.num_steps=9"]
    composed = compose_params("smoke", conf=conf, overrides=overrides)
    said = choose("smoke", overrides, composed=composed, root=conf.parent)
    assert said == "'++generator.num_steps=9' cannot be kept for `dvc exp run`; pass it there with -S"
    assert compose_root(CHOSEN, conf=conf) == yaml.safe_load(compose_params("smoke", conf=conf))


def test_a_file_that_is_no_yaml_is_kept_too(conf):
    path = conf.parent / "params.yaml"
    path.write_text("generator: [")
    assert "replaced (the whole file)" in (keep_edited(path, conf=conf) or "")
    assert path.with_name("params.yaml.bak").read_text() == "generator: ["


def test_parameters_that_conf_gives_are_not_kept(conf):
    path = conf.parent / "params.yaml"
    path.write_text(compose_params("mini", conf=conf))
    assert keep_edited(path, conf=conf) is None
    assert not path.with_name("params.yaml.bak").exists()
