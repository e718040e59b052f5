"""Repair DVC's files: DVC 3.67 rewrites them in place, so a kill at that moment leaves a truncated one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from diffground.atomic import write_atomically
from diffground.errors import UserError
from diffground.reproduction.commands import DVC_TEMPORARY, git_file
from diffground.reproduction.lock_file import read_stages

LOCK = Path("dvc.lock")
DVC_STAGE = "DVC_STAGE"
"""Environment variable that DVC sets for stages."""
COPY = DVC_TEMPORARY / "diffground" / LOCK.name
RWLOCK = DVC_TEMPORARY / "rwlock"
"""The files that each process works on; DVC checks whether the process is alive."""
_WRITE_S = 1.0
"""Longer than DVC takes to write RWLOCK."""


def keep_copy(root: Path = Path()) -> None:
    """Called before a stage works. If DVC has started the stage, it has just read dvc.lock, so the file is complete."""
    if DVC_STAGE in os.environ and (root / LOCK).is_file():
        write_atomically(root / COPY, (root / LOCK).read_text(encoding="utf-8"))


def recover(root: Path = Path()) -> list[str]:
    """Restore a truncated dvc.lock from the copy of before the last stage, else from the last commit; remove an rwlock
    that DVC cannot read. No DVC command may be running in `root`.

    Outputs of a killed stage are kept; it finds them when it runs again. Returns: one line per repair.
    Raises: UserError when there is no dvc.lock to restore.
    """
    done = []
    lock, rwlock = root / LOCK, root / RWLOCK
    if lock.is_file():
        text = lock.read_text(encoding="utf-8", errors="replace")
        if not is_whole(text) or _lost_stages(text, root):
            done.append(f"{LOCK}: restored from {_put_back(root)}")
    if rwlock.is_file() and not is_json(rwlock):
        time.sleep(_WRITE_S)
        if rwlock.is_file() and not is_json(rwlock):
            rwlock.unlink()
            done.append(f"{RWLOCK}: removed")
    return done


def is_whole(text: str) -> bool:
    """Whether DVC accepts `text` as a dvc.lock, and its last line is complete."""
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException
    from dvc.utils.serialize import parse_yaml

    try:
        Lockfile.validate(parse_yaml(text, str(LOCK)))
    except DvcException:
        return False
    return text.endswith("\n")


def _lost_stages(text: str, root: Path) -> bool:
    """Whether `text` ends between two stages of the copy. DVC itself never removes the last ones; a checkout may."""
    left, before = list(read_stages(text)), list(read_stages(_copy(root)))
    return len(left) < len(before) and left == before[: len(left)] and text != _committed(root)


def _copy(root: Path) -> str:
    text = (root / COPY).read_text(encoding="utf-8") if (root / COPY).is_file() else ""
    return text if is_whole(text) else ""


def _committed(root: Path) -> str | None:
    return git_file("HEAD", f"./{LOCK}", cwd=root)


def _put_back(root: Path) -> str:
    for text, source in ((_copy(root), str(COPY)), (_committed(root), "the last commit")):
        if text and is_whole(text):
            write_atomically(root / LOCK, text)
            return source
    raise UserError(f"{root / LOCK}: damaged, and there is no copy; delete it and run `dvc repro`")


def is_json(path: Path) -> bool:
    """Whether `path`, which is there, holds JSON, as DVC needs it in RWLOCK."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
