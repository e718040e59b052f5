"""A copy of dvc.lock: DVC 3.67 rewrites it in place, and killed at that moment leaves one that it cannot read."""

from __future__ import annotations

import os
from pathlib import Path

from diffground.atomic import write_atomically
from diffground.errors import UserError
from diffground.experiments.commands import git_file

LOCK = Path("dvc.lock")
DVC_STAGE = "DVC_STAGE"
"""Environment variable that DVC sets for stages."""
COPY = Path(".dvc", "tmp", "diffground", LOCK.name)


def keep_copy(root: Path = Path()) -> None:
    """Before a stage works, where DVC has started it: DVC has just read the file, so it is whole."""
    if DVC_STAGE in os.environ and (root / LOCK).is_file():
        write_atomically(root / COPY, (root / LOCK).read_text(encoding="utf-8"))


def restore_lock(root: Path = Path()) -> str | None:
    """Put back a dvc.lock that DVC cannot read, as it was before the last stage, or else as last committed.

    What the killed stage has made is kept: it runs again and finds it. Returns: where it came from, None where the file
    is in order or missing. Raises: UserError when there is nothing to put back.
    """
    lock = root / LOCK
    if not lock.is_file() or is_whole(lock.read_text(encoding="utf-8", errors="replace")):
        return None
    committed = git_file("HEAD", f"./{LOCK}", cwd=root)
    copy = (root / COPY).read_text(encoding="utf-8") if (root / COPY).is_file() else ""
    for text, source in ((copy, str(COPY)), (committed, "the last commit")):
        if text and is_whole(text):
            write_atomically(lock, text)
            return source
    raise UserError(f"{lock}: DVC cannot read it, and there is no copy; delete it and run `dvc repro`")


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
