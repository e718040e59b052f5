"""Everything that stages log, on disk before it is sent, so that nothing is lost while the server is away.

One folder per stage run, named by its start time, so that the folders are sorted by the start of the runs:

    entries.jsonl   one JSON object with its time per line; lines are only appended
    files/          copies of the files that entries name

`.<name>.lock` next to it is held by the process that writes or sends it. A folder is removed once it is delivered.
Nothing here depends on MLflow.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

FOLDER = Path(".mlflow-journal")
ENVIRONMENT_VARIABLE = "DIFFGROUND_JOURNAL"
"""Overrides FOLDER: stages that run in a clone write to the journal of the repository."""

_ENTRIES, _FILES, _REFUSED = "entries.jsonl", "files", "refused.jsonl"


class Session:
    """The journal of one stage run. Several threads may append; the process that holds the lock delivers.

    offset: entries before it were delivered by this process; another process repeats them, which has no effect.
    ids: of the runs "run" and "parent"; empty until this process has made or found them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, folder.name
        self.offset = 0
        self.ids: dict[str, str] = {}
        self._appending = threading.Lock()
        self._lock = FileLock(folder.with_name(f".{folder.name}.lock"), blocking=False, thread_local=False)

    @classmethod
    def start(cls, root: Path, stage: str) -> Session:
        """A new session below `root`, held by this process."""
        session = cls(root / f"{now_ms():013d}-{stage}-{uuid4().hex[:8]}")
        root.mkdir(parents=True, exist_ok=True)
        session.acquire()
        session.folder.mkdir()  # after the lock, so that no process finds a folder that is not held
        return session

    def acquire(self) -> bool:
        """Hold it until `release`; False where another process holds it."""
        try:
            self._lock.acquire()
        except Timeout:
            return False
        return True

    def release(self) -> None:
        self._lock.release()

    def append(self, op: str, **values: Any) -> None:
        """Write an entry with the present time."""
        line = json.dumps({"op": op, "at_ms": now_ms(), **values}).encode() + b"\n"
        with self._appending, (self.folder / _ENTRIES).open("ab", buffering=0) as file:
            start = file.tell()
            if file.write(line) != len(line):
                file.truncate(start)  # or the next entry would continue in the middle of this one
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder / _ENTRIES))

    def keep(self, path: Path) -> str:
        """Copy a file, or a folder with its content; return its path relative to the folder of the session."""
        target = self.folder / _FILES / uuid4().hex[:8] / path.name
        target.parent.mkdir(parents=True)
        if path.is_dir():
            shutil.copytree(path, target, copy_function=_link_or_copy)
        else:
            _link_or_copy(path, target)
        return str(target.relative_to(self.folder))

    def entries(self, *, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """Entries from `offset`, each with the offset of the next one, without a last line that is not complete."""
        path = self.folder / _ENTRIES
        if not path.is_file():  # killed before it wrote anything
            return
        with path.open("rb") as file:
            file.seek(offset)
            while (line := file.readline()).endswith(b"\n"):
                yield json.loads(line), file.tell()

    def refuse(self, entry: dict[str, Any], reason: str) -> None:
        """Set an entry aside that the server will never take, so that the next ones are delivered."""
        line = json.dumps({"session": self.key, "reason": reason, **entry}) + "\n"
        path = self.folder.parent / _REFUSED
        if not path.is_file() or line not in path.read_text(encoding="utf-8"):
            with path.open("a", encoding="utf-8") as file:
                file.write(line)

    def remove(self) -> None:
        """Remove it and release it. The entries go first: a session without them is a delivered one."""
        (self.folder / _ENTRIES).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self.release()


def journal_folder() -> Path:
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or FOLDER)


def sessions(root: Path) -> list[Session]:
    """In the order of their start."""
    return [Session(path) for path in sorted(root.glob("*-*/")) if not path.name.startswith(".")]


def num_refused(root: Path) -> int:
    path = root / _REFUSED
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    """Weights are written whole and then renamed, so a hard link keeps them as they are, at no cost."""
    if Path(source).suffix == ".safetensors":
        with suppress(OSError):  # another file system
            os.link(source, target)
            return
    shutil.copyfile(source, target)
