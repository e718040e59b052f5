"""What stages tell the tracking server, on disk before it is sent: nothing is lost while the server is away.

One folder a stage that ran, named by its start time, so that their order is that of the runs:

    entries.jsonl   what happened, one JSON object a line with its time; only ever appended to
    files/          copies of the files that entries name
    progress.json   up to where entries have arrived, and as what; replaced after every entry
    lock            held by the process that writes or sends

A folder is gone once all of it has arrived. Nothing here knows MLflow.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

FOLDER = Path(".mlflow-journal")
ENVIRONMENT_VARIABLE = "DIFFGROUND_JOURNAL"
"""Goes before FOLDER: stages that run in a clone write to the journal of the repository."""

_ENTRIES, _PROGRESS, _FILES, _LOCK = "entries.jsonl", "progress.json", "files", "lock"
_REFUSED = "refused.jsonl"
_DONE = ".done-"


@dataclass(frozen=True)
class Entry:
    """One thing to deliver."""

    op: str
    at_ms: int
    """When it happened, ms since 1970."""
    values: Mapping[str, Any]
    end: int
    """Offset in the file of what comes after it."""


@dataclass
class Progress:
    """What has arrived: everything before `offset`; `ids` names the runs that it made there."""

    offset: int = 0
    ids: dict[str, str] = field(default_factory=dict)


class Session:
    """The journal of one stage that ran, or runs. Several threads may append; one process delivers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._appending = threading.Lock()
        self._lock: IO[str] | None = None
        self._num_files = 0

    @classmethod
    def start(cls, root: Path, stage: str) -> Session:
        """A new one below `root`, held by this process."""
        name = f"{now_ms():013d}-{stage}-{uuid4().hex[:8]}"
        session = cls(root / f".{name}")  # a name that nobody looks at, until it is held
        session.folder.mkdir(parents=True)
        (session.folder / _ENTRIES).touch()
        session.acquire()
        session.folder = session.folder.rename(root / name)
        return session

    @property
    def key(self) -> str:
        return self.folder.name

    def acquire(self) -> bool:
        """Hold it until `release`; False where another process does, or has removed it."""
        try:
            lock = (self.folder / _LOCK).open("w", encoding="utf-8")
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        if not self.folder.is_dir():  # delivered by another process just now
            self.release()
        return self._lock is not None

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def append(self, op: str, values: Mapping[str, Any], *, at_ms: int | None = None) -> None:
        """Write an entry, of this moment unless `at_ms` says another one."""
        line = json.dumps({"op": op, "at_ms": now_ms() if at_ms is None else at_ms, "values": values}).encode() + b"\n"
        with self._appending, (self.folder / _ENTRIES).open("ab", buffering=0) as file:
            start = file.tell()
            if file.write(line) != len(line):
                file.truncate(start)  # or the next entry would go on in the middle of this one
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder / _ENTRIES))

    def keep(self, path: Path) -> str:
        """Copy a file, or a folder with all it holds; return its name for `kept`."""
        with self._appending:
            self._num_files += 1
            name = f"{self._num_files:04d}/{path.name}"
        target = self.folder / _FILES / name
        target.parent.mkdir(parents=True)
        if path.is_dir():
            shutil.copytree(path, target, copy_function=_link_or_copy)
        else:
            _link_or_copy(path, target)
        return name

    def kept(self, name: str) -> Path:
        return self.folder / _FILES / name

    def entries(self, *, offset: int = 0) -> Iterator[Entry]:
        """Those from `offset` on. A line that a killed process did not finish is left out."""
        with (self.folder / _ENTRIES).open("rb") as file:
            file.seek(offset)
            while (line := file.readline()).endswith(b"\n"):
                yield Entry(**json.loads(line), end=file.tell())

    def close_after_death(self) -> None:
        """Let the entries of a process that was killed end at the last one."""
        path = self.folder / _ENTRIES
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
        for last in deque(self.entries(), maxlen=1):
            if last.op != "end":
                self.append("end", {"status": "KILLED"}, at_ms=last.at_ms)

    def progress(self) -> Progress:
        path = self.folder / _PROGRESS
        return Progress(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else Progress()

    def save_progress(self, progress: Progress) -> None:
        partial = self.folder / f"{_PROGRESS}.partial"
        partial.write_text(json.dumps({"offset": progress.offset, "ids": progress.ids}), encoding="utf-8")
        partial.replace(self.folder / _PROGRESS)

    def refuse(self, entry: Entry, reason: str) -> None:
        """Set aside what the server will never take, so that it does not hold up the rest."""
        line = json.dumps(
            {"session": self.key, "reason": reason, "op": entry.op, "at_ms": entry.at_ms, "values": entry.values}
        )
        with (self.folder.parent / _REFUSED).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def remove(self) -> None:
        done = self.folder.rename(self.folder.with_name(f"{_DONE}{self.key}"))
        shutil.rmtree(done, ignore_errors=True)
        self.release()


def journal_folder() -> Path:
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or FOLDER)


def sessions(root: Path) -> list[Session]:
    """In the order in which they began."""
    if not root.is_dir():
        return []
    return [Session(path) for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def remove_leftovers(root: Path) -> None:
    """Sessions that had arrived when the process that was removing them was killed."""
    for folder in root.glob(f"{_DONE}*"):
        shutil.rmtree(folder, ignore_errors=True)


def num_refused(root: Path) -> int:
    path = root / _REFUSED
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """One process at a time: what is looked for and made where it is not found would else be made twice."""
    with (root / _LOCK).open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    """Weights are written whole and then renamed, so a second name keeps them as they are, at no cost."""
    if Path(source).suffix == ".safetensors":
        try:
            os.link(source, target)
        except OSError:  # another file system
            pass
        else:
            return
    shutil.copyfile(source, target)
