"""Repositories that tests make and throw away, and commands in them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

WORKING_TREE = Path(__file__).parents[1]
TIMEOUT_S = 1200
_SETTINGS = ("AWS_", "DVC_", "DIFFGROUND_", "GIT_", "MLFLOW_", "PREFECT_")


class ScratchRepository:
    """A git repository at `root`; what runs in it has this Python, the package from `python_path`, and no settings of
    other tools but `variables`."""

    def __init__(self, root, *, python_path, **variables):
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(_SETTINGS)},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(python_path),
            "DVC_NO_ANALYTICS": "1",
            **variables,
        }

    def initialise(self):
        """An empty repository of git, that takes commits."""
        self.run("git", "init", "--quiet")
        self.run("git", "config", "user.name", "tester")
        self.run("git", "config", "user.email", "tester@example.org")

    def commit(self, message):
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def start(self, *command, **variables):
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command, **variables):
        """Run a command that must succeed; return what it printed."""
        process = self.start(*command, **variables)
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, f"{' '.join(command)} failed:\n{output[-6000:]}"
        return output


def copy_of_the_working_tree(root):
    """A repository with the tracked and untracked files of this one, without its tests and its results."""
    repository = ScratchRepository(root, python_path=root / "src")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=WORKING_TREE,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        made = name.startswith("reports/") and not name.startswith(("reports/experiments/", "reports/benchmarks/"))
        if (WORKING_TREE / name).is_file() and not made and not name.startswith("tests/") and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(WORKING_TREE / name, root / name)
    repository.initialise()
    return repository
