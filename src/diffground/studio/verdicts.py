"""The file of verdicts, written by several tabs and people: read again before each change, under a lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from diffground.data.labelled import LabelledSample
from diffground.data.review import Review, ReviewEntry, look_of, read_review, write_review
from diffground.errors import UserError

_LOCK_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Change:
    """What one verdict replaced."""

    key: str
    before: ReviewEntry | None
    after: ReviewEntry | None


class VerdictFile:
    """One review file. Every change is on the disk, whole, before it is answered: nothing is lost by a kill."""

    def __init__(self, path: Path, *, lock: Path) -> None:
        """lock: a file that must not lie next to `path`, in whose folder DVC would count it."""
        self.path = path
        self._lock = lock

    def read(self) -> Review:
        """As it is now. Raises: UserError as read_review does."""
        return read_review(self.path)

    def judge(self, sample: LabelledSample, verdict: str) -> Change:
        """Set the verdict on a sample; the note that it has stays. Raises: UserError as `read` does."""
        with self._changing() as entries:
            before = entries.get(sample.key)
            note = before.note if before else ""
            after = ReviewEntry(sample.key, sample.prompt, look_of(sample), verdict, note, line=0)
            entries[sample.key] = after
        return Change(sample.key, before, after)

    def undo(self, change: Change) -> bool:
        """Take a change back. Returns: whether the verdict was still that of `change`; else nothing is done."""
        with self._changing() as entries:
            now = entries.get(change.key)
            is_unchanged = _content(now) == _content(change.after)
            if is_unchanged and change.before is None:
                entries.pop(change.key, None)
            elif is_unchanged and change.before is not None:
                entries[change.key] = change.before
        return is_unchanged

    def drop(self, keys: Mapping[str, object] | set[str]) -> int:
        """Remove the verdicts on samples that are not among `keys`. Returns: how many there were."""
        with self._changing() as entries:
            foreign = [key for key in entries if key not in keys]
            for key in foreign:
                del entries[key]
        return len(foreign)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, ReviewEntry]]:
        """The entries as the file has them now; what they are at the end is written, if it is something else."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._lock, timeout=_LOCK_TIMEOUT_S):
                before = dict(self.read().entries)
                entries = dict(before)
                yield entries
                if entries != before:
                    for partial in self.path.parent.glob(f"{self.path.name}.*.partial"):  # of a Studio that was killed
                        partial.unlink(missing_ok=True)
                    write_review(self.path, ((e.id, e.prompt, e.look, e.verdict, e.note) for e in entries.values()))
        except Timeout:
            raise UserError(f"{self.path}: another program keeps it locked; close it and try again") from None


def _content(entry: ReviewEntry | None) -> ReviewEntry | None:
    """An entry without its line, which changes with other entries."""
    return None if entry is None else replace(entry, line=0)
