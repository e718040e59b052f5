"""A repository with this one's conf/ and three stages that only write down what they were asked to do."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import diffground
from diffground.entry_point import log_to_stderr
from diffground.errors import UserError
from diffground.experiments.run import run_experiments
from diffground.reproduction.catalogue import read_catalogue, select
from diffground.reproduction.composition import compose_params

ROOT = Path(__file__).parents[3]
PIPELINE = """\
stages:
  generate:
    cmd: python stage.py generate
    deps: [stage.py]
    params: [generator.tapped_step]
    outs:
      - data/generated: {persist: true}
  evaluate_grounding:
    cmd: python stage.py evaluate_grounding
    deps: [data/generated, notes.txt]
    params: [grounding.training_type]
    metrics:
      - reports/metrics/evaluate_grounding.json: {cache: false}
  evaluate_zs3:
    cmd: python stage.py evaluate_zs3
    deps: [reports/metrics/evaluate_grounding.json]
    params: [segmenter.training_sets]
    metrics:
      - reports/metrics/evaluate_zs3.json: {cache: false}
"""
# PROCESSOR decides the bytes that generate writes. LOG gets a line a piece of work, LOG.stores a line a stage: where it
# would be tracked. The stage named in FAIL ends in an error before its second piece.
STAGE = """\
import json, os, pathlib, sys, yaml

with open(os.environ["LOG"] + ".stores", "a") as stores:
    stores.write(os.environ.get("MLFLOW_TRACKING_URI", "none") + "\\n")
name, params = sys.argv[1], yaml.safe_load(open("params.yaml"))

def work(what):
    if os.environ.get("FAIL") == name and what.endswith("1"):
        sys.exit("told to fail")
    with open(os.environ["LOG"], "a") as log:
        log.write(f"{os.environ.get('DVC_EXP_NAME', 'default')}: {name} {what}\\n")

if name == "generate":
    step = params["generator"]["tapped_step"]
    folder = pathlib.Path("data/generated")
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(3):
        path, text = folder / str(shard), f"step {step} {os.environ.get('PROCESSOR', '')}"
        if not path.exists() or path.read_text() != text:
            work(f"shard {shard}")
            path.write_text(text)
else:
    work("0")
    work("1")
    metrics = {"grounding": {"one_seen": 10.0 * int(open("data/generated/0").read().split()[1])},
               "type": params["grounding"]["training_type"], "sets": params["segmenter"]["training_sets"]}
    path = pathlib.Path("reports/metrics", name + ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metrics))
"""


class TinyRepository:
    def __init__(self, root):
        self.root = root
        self.log = root.parent / "log.txt"
        self.log.touch()
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_", "MLFLOW_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(Path(diffground.__file__).parents[1]),
            "LOG": str(self.log),
        }
        shutil.copytree(ROOT / "conf", root / "conf")
        (root / "models/mini/diffusion").mkdir(parents=True)
        (root / "models/mini/diffusion/config.json").write_text("{}")
        (root / "dvc.yaml").write_text(PIPELINE)
        (root / "stage.py").write_text(STAGE)
        (root / "notes.txt").write_text("notes\n")
        (root / "params.yaml").write_text(compose_params("mini", conf=root / "conf"))
        (root / ".gitignore").write_text("/data/\n")
        self.call("git", "init", "--quiet")
        self.call("git", "config", "user.name", "tester")
        self.call("git", "config", "user.email", "tester@example.org")
        self.dvc("init", "--quiet")
        shutil.copyfile(ROOT / ".dvc/config", root / ".dvc/config")
        self.dvc("repro", "--quiet")
        self.commit("default run")

    def call(self, *command):
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def dvc(self, *arguments):
        return self.call(sys.executable, "-m", "dvc", *arguments)

    def commit(self, message):
        self.call("git", "add", "--all")
        self.call("git", "commit", "--quiet", "--message", message)

    def state(self):
        """What an experiment must leave alone."""
        tracked = self.call("git", "ls-files").split()
        return self.call("git", "rev-parse", "HEAD"), {name: (self.root / name).read_bytes() for name in tracked}

    def new_log_lines(self):
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines

    def experiments(self, *globs):
        return select(read_catalogue(self.root / "conf/experiment"), globs)

    def run(self, *globs, fail=""):
        """run_experiments of this repository; returns its log, and its error or None."""
        return self.run_all(self.experiments(*globs), fail=fail)

    def run_all(self, experiments, *, fail=""):
        printed, saved = io.StringIO(), dict(os.environ)
        os.environ.clear()
        os.environ.update({**self.environment, "FAIL": fail})
        try:
            with contextlib.redirect_stderr(printed), log_to_stderr():
                run_experiments(experiments, profile="mini", root=self.root)
        except UserError as error:
            return printed.getvalue(), str(error)
        finally:
            os.environ.clear()
            os.environ.update(saved)
        return printed.getvalue(), None


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny") / "repository"
    root.mkdir()
    return TinyRepository(root)
