"""Calls of git and DVC, and locks between commands that must not run at the same time."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from diffground.errors import UserError

DVC = (sys.executable, "-m", "dvc")
DVC_TEMPORARY = Path(".dvc", "tmp")
"""DVC's own working folder: DVC ignores it, and git does."""


def output_of(command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """What a command prints, without the last line end. Raises: UserError with the last line of its error output."""
    try:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError(f"`{command[0]}` cannot be started: {error.strerror}; install it") from None
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise UserError(f"`{' '.join(command)}` failed in {cwd.resolve()}: {said[-1] if said else 'no message'}")
    return done.stdout.removesuffix("\n")


def environment_of(root: Path) -> dict[str, str]:
    """For git, DVC and the stages in the clone `root`: this Python first, and the clone's own code."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root / "src"), os.environ.get("PYTHONPATH", "")])),
    }


def git(*arguments: str, cwd: Path) -> str:
    return output_of(("git", *arguments), cwd=cwd)


def git_file(revision: str, path: str, *, cwd: Path) -> str | None:
    """Text of a file in a commit; None where the commit does not have it."""
    try:
        done = subprocess.run(
            ["git", "show", f"{revision}:{path}"], cwd=cwd, capture_output=True, check=False, encoding="utf-8"
        )
    except FileNotFoundError:  # git itself is not installed
        return None
    return None if done.returncode else done.stdout


def experiment_commits(*, cwd: Path) -> dict[str, tuple[str, str]]:
    """DVC experiment -> its newest commit and the commit that it started from."""
    newest: dict[str, tuple[str, str]] = {}
    listed = git("for-each-ref", "--sort=committerdate", "--format=%(objectname) %(refname)", "refs/exps", cwd=cwd)
    for line in listed.splitlines():
        commit, _, ref = line.partition(" ")
        parts = ref.split("/")  # refs/exps/ab/cdef…/NAME; refs/exps/exec/… is DVC's own
        if len(parts) == 5:
            newest[parts[4]] = (commit, parts[2] + parts[3])
    return newest


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`. Raises: UserError while another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / "lock").acquire(blocking=False)
    except Timeout:
        raise UserError(f"another process is running '{folder.name}'; wait until it has ended") from None
    with held:
        yield


def check_dvc_is_idle(root: Path) -> None:
    """Raises: UserError, one line, while a DVC command runs stages of `root` or holds its lock."""
    import psutil

    rwlock = root / DVC_TEMPORARY / "rwlock"
    text = rwlock.read_text(encoding="utf-8") if rwlock.is_file() else ""
    busy = [
        f"{info['cmd']}, process {info['pid']}" for info in _lock_holders(text) if psutil.pid_exists(int(info["pid"]))
    ]
    lock = root / DVC_TEMPORARY / "lock"
    if not busy and lock.is_file():
        with lock.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                busy = [f"process {lock.read_text(encoding='utf-8').strip() or 'unknown'}"]
    if busy:
        raise UserError(f"a DVC command is running here ({busy[0]}); wait until it has ended")


def _lock_holders(text: str) -> list[dict[str, Any]]:
    try:
        lock = json.loads(text or "{}")
    except json.JSONDecodeError:  # DVC is writing it at this moment
        return []
    readers = [info for infos in lock.get("read", {}).values() for info in infos]
    return [*lock.get("write", {}).values(), *readers]
