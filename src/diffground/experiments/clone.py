"""The folder of one experiment: a clone of the repository at its last commit that shares DVC's cache.

`dvc exp run` of DVC 3.67 does not fit: it writes into the workspace while it queues, it checks out outputs before it
runs and so deletes the finished shards of a killed stage, and its run cache never holds stages with persisting outputs.
A clone does not touch the workspace, and a killed experiment resumes in its folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffground.errors import UserError
from diffground.reproduction import paths
from diffground.reproduction.catalogue import Experiment, run_name
from diffground.reproduction.commands import DVC, DVC_TEMPORARY, environment_of, git, git_file, output_of
from diffground.reproduction.lock_file import Stages, combine, metrics_files, read_stages, read_yaml, write_stages
from diffground.reproduction.recovery import LOCK, is_whole, recover
from diffground.tracking import absolute_store
from diffground.tracking.journal import ENVIRONMENT_VARIABLE as JOURNAL_VARIABLE
from diffground.tracking.journal import journal_folder

_READY = DVC_TEMPORARY / "ready"
_NOTHING_TO_DO = "Data and pipelines are up to date."


@dataclass(frozen=True)
class Clone:
    """`root`: the repository. `path`: the clone's folder, absolute. `commit`: the start of the experiment."""

    root: Path
    path: Path
    commit: str
    experiment: Experiment
    profile: str

    @property
    def name(self) -> str:
        return run_name(self.experiment.name, self.profile)

    def prepare(self, *, earlier: str | None) -> bool:
        """Create the folder, or resume in it. `earlier`: a commit of this experiment whose results may still be valid.

        Returns: whether a stage has to run; not if the results of `earlier` or of the committed default run are valid.
        Raises: UserError when git or DVC fail.
        """
        if (self.path / _READY).is_file():
            self._follow_commit()
            self._write_params()
            return True
        shutil.rmtree(self.path, ignore_errors=True)
        self._clone()
        self._write_params()
        if earlier is None and self._is_up_to_date():
            return False
        self._take_over(earlier)
        if earlier is not None and self._is_up_to_date():
            return False
        # without this, DVC would run stages with persisting outputs again: they are never in its run cache
        self._dvc("checkout", "--quiet", "--allow-missing", "--with-deps", self.experiment.target)
        (self.path / _READY).touch()
        return True

    def reproduce(self) -> bool:
        """Run the stages, with output on the terminal. Returns: whether all of them succeeded."""
        recover(self.path)
        command = [*DVC, "repro", self.experiment.target]
        return subprocess.run(command, cwd=self.path, env=self._environment(), check=False).returncode == 0

    def save(self) -> None:
        """Save the results in the repository as a DVC experiment with this name."""
        self._dvc("exp", "save", "--quiet", "--force", "--name", self.name, self.experiment.target)
        self._dvc("exp", "push", "--quiet", "--force", "--no-cache", "origin", self.name)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _clone(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        git("clone", "--quiet", "--shared", "--no-checkout", str(self.root), str(self.path), cwd=self.root)
        for key in ("user.name", "user.email"):
            value = subprocess.run(["git", "config", key], cwd=self.root, capture_output=True, text=True, check=False)
            git("config", key, value.stdout.strip() or "diffground", cwd=self.path)
        git("checkout", "--quiet", "--detach", self.commit, cwd=self.path)
        local = Path(".dvc/config.local")
        if (self.root / local).is_file():
            shutil.copyfile(self.root / local, self.path / local)
        cache = (self.root / output_of([*DVC, "cache", "dir"], cwd=self.root)).resolve()
        self._dvc("cache", "dir", "--local", str(cache))

    def _follow_commit(self) -> None:
        """Check out a newer commit of the repository; outputs of the killed run stay."""
        if git("rev-parse", "HEAD", cwd=self.path) == self.commit:
            return
        lock = (self.path / LOCK).read_bytes()
        git("checkout", "--quiet", "--force", "--detach", self.commit, cwd=self.path)
        (self.path / LOCK).write_bytes(lock)

    def _write_params(self) -> None:
        arguments = ["-m", "diffground", "profile", self.profile, *self.experiment.overrides]
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or [""]
            raise UserError(f"{said[-1].removeprefix('error: ')} (conf/ of the last commit)")

    def _take_over(self, earlier: str | None) -> None:
        """Write into dvc.lock the entries of stages that need not run, and copy their metrics.

        The workspace's own results come before the committed ones: on another processor their bytes differ, and what
        was trained on them cannot be combined with the committed ones.
        """
        commits = [commit for commit in (self.commit, earlier) if commit is not None]
        readers: list[Callable[[str], str | None]] = [partial(git_file, commit, cwd=self.path) for commit in commits]
        candidates = [self._workspace_stages(), *(read_stages(read(LOCK.name) or "") for read in readers)]
        stages, _ = combine(candidates, read_yaml((self.path / paths.PARAMS).read_text(encoding="utf-8")))
        write_stages(self.path / LOCK, stages)
        for read, candidate in zip([self._workspace_file, *readers], candidates, strict=True):
            taken = [name for name, entry in stages.items() if entry is candidate.get(name)]
            for path in metrics_files(stages, taken, folder=paths.METRICS.as_posix()).values():
                text = read(path)
                if text is not None:
                    (self.path / path).parent.mkdir(parents=True, exist_ok=True)
                    (self.path / path).write_text(text, encoding="utf-8")

    def _workspace_file(self, path: str) -> str | None:
        file = self.root / path
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def _workspace_stages(self) -> Stages:
        """Entries of the workspace's dvc.lock, without those of stages that read a file that differs from `commit`."""
        text = self._workspace_file(LOCK.name) or ""
        changed = git("diff", "--name-only", "-z", self.commit, cwd=self.root).split("\0")
        if not is_whole(text) or "dvc.yaml" in changed:
            return {}
        stages = read_stages(text)
        made = {out["path"] for entry in stages.values() for out in entry.get("outs", [])}

        def reads_changed(entry: Mapping[str, Any]) -> bool:
            inputs = {dep["path"] for dep in entry.get("deps", [])} - made
            return any(f"{name}/".startswith(f"{path}/") for path in inputs for name in changed)

        return {name: entry for name, entry in stages.items() if not reads_changed(entry)}

    def _is_up_to_date(self) -> bool:
        """Whether DVC would run nothing according to dvc.lock; outputs may be missing."""
        try:
            return _NOTHING_TO_DO in self._dvc("repro", "--dry", "--allow-missing", self.experiment.target)
        except UserError:  # a stage would run, and its inputs are missing
            return False

    def _dvc(self, *arguments: str) -> str:
        return output_of([*DVC, *arguments], cwd=self.path, env=self._environment())

    def _environment(self) -> dict[str, str]:
        """For commands in the clone: its code, this Python, and an MLflow run with the name of the experiment."""
        return {
            **environment_of(self.path),
            "DVC_EXP_NAME": self.name,
            "MLFLOW_TRACKING_URI": self._tracking_uri(),
            # the clone is removed when the experiment is saved; undelivered entries must stay
            JOURNAL_VARIABLE: str((self.root / journal_folder()).resolve()),
        }

    def _tracking_uri(self) -> str:
        """Where the repository's own runs are logged."""
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        params = self.path / paths.PARAMS
        if not uri and params.is_file():
            uri = str(read_yaml(params.read_text(encoding="utf-8")).get("tracking", {}).get("uri", ""))
        return absolute_store(uri, root=self.root)
