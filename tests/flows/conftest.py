"""A DVC project of three stages whose behaviour files decide, and a Prefect server for the tests of a run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINE = """\
stages:
  make:
    cmd: python stage.py make
    deps: [stage.py, wish]
    outs: [made]
  use:
    cmd: python stage.py use
    deps: [made]
    outs: [used]
  aside:
    cmd: python stage.py aside
    deps: [stage.py]
    outs: [beside]
"""
# `wish` holds the exit codes of the stage make, one a try; "sleep" waits with a child until both are ended.
STAGE = """\
import os, pathlib, signal, subprocess, sys, time

name = sys.argv[1]
with open("log.txt", "a") as log:
    log.write(name + "\\n")
if name == "make":
    wishes = pathlib.Path("wish").read_text().split()
    wish = wishes[min(pathlib.Path("log.txt").read_text().split().count("make"), len(wishes)) - 1]
    if wish == "sleep":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path("pids").write_text(f"{os.getpid()} {child.pid}")
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pathlib.Path("interrupted").touch()
            sys.exit(130)
    if wish == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if wish != "0":
        sys.exit(f"error: told to fail with {wish}" if wish == "1" else int(wish))
pathlib.Path({"make": "made", "use": "used", "aside": "beside"}[name]).write_text(name)
"""


class Project:
    def __init__(self, root):
        self.root = root
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        (root / "dvc.yaml").write_text(PIPELINE)
        (root / "stage.py").write_text(STAGE)
        self.wish("0")

    def wish(self, *codes):
        (self.root / "wish").write_text(" ".join(codes))
        (self.root / "log.txt").unlink(missing_ok=True)

    def ran(self):
        """Names of the stages that were started since the last `wish`, in order."""
        log = self.root / "log.txt"
        return log.read_text().split() if log.is_file() else []

    def dvc(self, *arguments):
        command = [sys.executable, "-m", "dvc", *arguments]
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def initialised(tmp_path_factory):
    """A folder in which `dvc init` has run: a start of DVC costs seconds."""
    root = tmp_path_factory.mktemp("initialised")
    project = Project(root)
    project.dvc("init", "--quiet", "--no-scm")
    project.dvc("config", "core.analytics", "false")
    return root


@pytest.fixture
def project(tmp_path, initialised):
    return Project(shutil.copytree(initialised, tmp_path / "project"))


@pytest.fixture(scope="session")
def prefect_server():
    """A real server with a database of its own, for all tests of this process."""
    pytest.importorskip("prefect")
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=300):
        yield
