"""Map a function over shards so that a killed run resumes where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffground.atomic import write_atomically
from diffground.data.shards import Sample, count_samples, write_shard
from diffground.errors import UserError
from diffground.runtime.code_digest import code_digest
from diffground.runtime.instruction_set import limits
from diffground.runtime.progress import Progress
from diffground.runtime.workers import Advance, Workers

_FINGERPRINT = "fingerprint.json"


@dataclass(frozen=True)
class ShardJob:
    """The input of `process` for shard `<name>.tar`."""

    name: str
    payload: Any


def shard_jobs(items: Sequence[Any], *, shard_size: int) -> list[ShardJob]:
    """One job for every `shard_size` consecutive items, named 000000, 000001 …; its payload is a view of them, which
    arrives at a worker as a list. Jobs therefore take no memory where `items` take none."""
    starts = range(0, len(items), shard_size)
    return [
        ShardJob(name=f"{i:06d}", payload=_View(items, range(len(items))[start : start + shard_size]))
        for i, start in enumerate(starts)
    ]


@dataclass(frozen=True)
class _View(Sequence[Any]):
    """Those of `items` at `places`."""

    items: Sequence[Any]
    places: range

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        places = self.places[index]
        return self.items[places.start : places.stop] if isinstance(places, range) else self.items[places]

    def __iter__(self) -> Iterator[Any]:
        return iter(self[:])

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(self),)


def map_shards(
    jobs: Sequence[ShardJob],
    *,
    out_dir: Path,
    fingerprint: dict[str, Any],
    process: Callable[[Any], Iterable[Sample]],
    description: str,
    num_samples: int,
    workers: Workers | None = None,
) -> int:
    """Write out_dir/<job.name>.tar for every job, one job per worker at a time. Returns how many were written now.

    `fingerprint` says what the shards depend on in addition to the code of `process`; it is stored with them. With the
    same one, complete shards are skipped. Shards of another one, and files that no job names, are deleted.
    Each shard appears whole or not at all, so the process may be killed at any time. `num_samples`, over all jobs, is
    for the progress display.

    workers: None: use only this process. For several, `process` must be picklable. Each writes whole shards, so their
    number changes no byte, only the number of threads of each.
    """
    fingerprint = {**fingerprint, **limits(), "code": code_digest(process.__module__)}
    _drop_foreign(out_dir, fingerprint=fingerprint, names={job.name for job in jobs})
    num_done, missing = 0, []
    for job in jobs:
        num = _count_complete(out_dir / f"{job.name}.tar")
        num_done += num or 0
        if num is None:
            missing.append(job)
    write = _WriteShard(out_dir=out_dir, process=process)
    try:
        with Progress(num_samples, description=description, initial=num_done) as progress:
            for _ in (workers or Workers()).map(write, missing, advance=progress.advance):
                pass
    finally:
        for partial in out_dir.glob("*.partial"):  # of workers that were stopped or lost
            partial.unlink(missing_ok=True)
    written = {entry.name for entry in out_dir.iterdir()}
    for job in missing:
        if f"{job.name}.tar" not in written:
            raise UserError(
                f"{out_dir}/{job.name}.tar was written on another machine; put {out_dir} on a filesystem that all "
                "machines of the cluster mount at the same path"
            )
    return len(missing)


@dataclass(frozen=True)
class _WriteShard:
    """Performs one job, in a worker."""

    out_dir: Path
    process: Callable[[Any], Iterable[Sample]]

    def __call__(self, job: ShardJob, advance: Advance) -> None:
        write_shard(self.out_dir / f"{job.name}.tar", _counted(self.process(job.payload), advance))


def _counted(samples: Iterable[Sample], advance: Advance) -> Iterator[Sample]:
    for sample in samples:
        yield sample
        advance(1)


def _drop_foreign(out_dir: Path, *, fingerprint: dict[str, Any], names: set[str]) -> None:
    """Leave in `out_dir` only the fingerprint and shards of `names` that were made with this same fingerprint."""
    text = json.dumps(fingerprint, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    kept = {_FINGERPRINT, *(f"{name}.tar" for name in names)}
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / _FINGERPRINT
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        kept = set()
    for entry in list(out_dir.iterdir()):
        if entry.name in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    if not kept:
        # written before the first shard, so that no shard is ever without the fingerprint it was made with
        write_atomically(path, text)


def _count_complete(path: Path) -> int | None:
    """Number of samples of a complete shard; None when it has to be written."""
    if not path.is_file():
        return None
    try:
        return count_samples(path)
    except UserError:
        return None
