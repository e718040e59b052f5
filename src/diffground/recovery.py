"""DVC 3.67 rewrites its own files in place: killed at that moment, it leaves one that it cannot read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from diffground.atomic import write_atomically
from diffground.errors import UserError
from diffground.experiments.commands import DVC_TEMPORARY, git_file

LOCK = Path("dvc.lock")
DVC_STAGE = "DVC_STAGE"
"""Environment variable that DVC sets for stages."""
COPY = DVC_TEMPORARY / "diffground" / LOCK.name
RWLOCK = DVC_TEMPORARY / "rwlock"
"""Which process works on which files; DVC looks whether it still lives."""
_WRITE_S = 1.0
"""Longer than DVC takes to write RWLOCK."""


def keep_copy(root: Path = Path()) -> None:
    """Before a stage works, where DVC has started it: DVC has just read dvc.lock, so it is whole."""
    if DVC_STAGE in os.environ and (root / LOCK).is_file():
        write_atomically(root / COPY, (root / LOCK).read_text(encoding="utf-8"))


def recover(root: Path = Path()) -> list[str]:
    """Put back a dvc.lock that DVC cannot read, as it was before the last stage, or else as last committed; remove a
    table of working processes that it cannot read. No DVC command is at work in `root`.

    What a killed stage has made is kept: it runs again and finds it. Returns: what was done, a line each.
    Raises: UserError when there is no dvc.lock to put back.
    """
    done = []
    lock, rwlock = root / LOCK, root / RWLOCK
    if lock.is_file() and not is_whole(lock.read_text(encoding="utf-8", errors="replace")):
        done.append(f"{LOCK}: put back from {_put_back(root)}")
    if rwlock.is_file() and not _is_json(rwlock):
        time.sleep(_WRITE_S)
        if rwlock.is_file() and not _is_json(rwlock):
            rwlock.unlink()
            done.append(f"{RWLOCK}: removed")
    return done


def is_whole(text: str) -> bool:
    """Whether DVC takes `text` for a dvc.lock."""
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException
    from dvc.utils.serialize import parse_yaml

    try:
        Lockfile.validate(parse_yaml(text, str(LOCK)))
    except DvcException:
        return False
    return True


def _put_back(root: Path) -> str:
    copy = (root / COPY).read_text(encoding="utf-8") if (root / COPY).is_file() else ""
    committed = git_file("HEAD", f"./{LOCK}", cwd=root)
    for text, source in ((copy, str(COPY)), (committed, "the last commit")):
        if text and is_whole(text):
            write_atomically(root / LOCK, text)
            return source
    raise UserError(f"{root / LOCK}: DVC cannot read it, and there is no copy; delete it and run `dvc repro`")


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
