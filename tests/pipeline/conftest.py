"""A copy of the repository on profile smoke, and `dvc` in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffground.smoke import build_components

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 1200


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.pipeline)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


class Repository:
    """Tracked and untracked files of this repository, in a folder of their own, set to profile smoke."""

    def __init__(self, root, *, components, overrides=()):
        self.root = root
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            made = name.startswith("reports/") and not name.startswith("reports/experiments/")
            if (ROOT / name).is_file() and not made and not name.startswith("tests/") and name != "dvc.lock":
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        shutil.copytree(components, root / "models" / "smoke")
        binaries = Path(sys.executable).parent
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))},
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(root / "src"),
        }
        self.run("git", "init", "--quiet")
        self.run("python", "-m", "diffground", "profile", "smoke", *overrides)

    def start(self, *command):
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command):
        """Run a command that must succeed; return what it printed."""
        process = self.start(*command)
        output, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, f"{' '.join(command)} failed:\n{output[-6000:]}"
        return output


@pytest.fixture(scope="session")
def components(tmp_path_factory):
    folder = tmp_path_factory.mktemp("components") / "smoke"
    build_components(folder)
    return folder


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory, components):
    """A repository after one uninterrupted `dvc repro`, with tracking on."""
    repository = Repository(tmp_path_factory.mktemp("reproduced"), components=components)
    repository.output = repository.run("dvc", "repro")
    return repository
