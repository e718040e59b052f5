"""A list of all samples of a set of shards, counted once and kept as a SQLite file, so that memory stays constant.

The file is named for the state of the shards (names, sizes, times), so it is made again when they change.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

from filelock import FileLock

from diffground.atomic import atomic_file
from diffground.data.shards import Member
from diffground.errors import UserError
from diffground.studio.shard_sets import Place, ShardSet

_VERSION = 1
"""Of the tables below."""
_TABLES = """
CREATE TABLE samples (
    number INTEGER PRIMARY KEY, key TEXT UNIQUE, shard TEXT, members TEXT, oracle TEXT,
    prompt TEXT, family TEXT, quality REAL
);
CREATE TABLE objects (sample INTEGER, category TEXT, area REAL);
"""
_INDEXES = """
CREATE INDEX by_quality ON samples (quality, number);
CREATE INDEX by_category ON objects (category, sample);
CREATE INDEX by_sample ON objects (sample, category);
"""


class SampleIndex:
    """The list of one set. Each question opens the file anew: shards may be replaced while the Studio runs."""

    def __init__(self, shard_set: ShardSet, folder: Path) -> None:
        """folder: of the files, made where it is missing."""
        self.shard_set = shard_set
        self._folder = folder

    @contextmanager
    def rows(self, *, progress: Callable[[int], None] = lambda _: None) -> Iterator[sqlite3.Connection]:
        """A connection to read with. progress: takes the number of samples while they are counted for the first time.

        Raises: UserError as ShardSet does.
        """
        path = self._current(progress)
        with closing(sqlite3.connect(f"file:{path.resolve().as_posix()}?mode=ro", uri=True)) as connection:
            yield connection

    def place(self, rows: sqlite3.Connection, number: int) -> Place:
        """Where sample `number` is."""
        found = rows.execute("SELECT key, shard, members, oracle FROM samples WHERE number = ?", (number,)).fetchone()
        if found is None:
            raise UserError(f"{self.shard_set.images}: has no sample number {number} any more; choose the set again")
        key, shard, members, oracle = found
        return Place(key, shard, _members(key, members), _members(key, oracle))

    def _current(self, progress: Callable[[int], None]) -> Path:
        path = self._folder / f"{self.shard_set.name}-{self._state()}.sqlite"
        if path.is_file():
            return path
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / f"{self.shard_set.name}.lock"):
            if not path.is_file():
                for old in self._folder.glob(f"{self.shard_set.name}-*"):
                    old.unlink(missing_ok=True)
                with atomic_file(path) as partial, closing(sqlite3.connect(partial)) as connection:
                    self._fill(connection, progress)
        return path

    def _state(self) -> str:
        stats = [(path.as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in self.shard_set.shards()]
        state = json.dumps([_VERSION, self.shard_set.categories, stats])
        return hashlib.sha256(state.encode()).hexdigest()[:16]

    def _fill(self, connection: sqlite3.Connection, progress: Callable[[int], None]) -> None:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.executescript(_TABLES)
        for number, place in enumerate(self.shard_set.places(), start=1):
            facts = self.shard_set.facts(place)
            try:
                connection.execute(
                    "INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        number,
                        place.key,
                        place.image_shard,
                        _as_text(place.members),
                        _as_text(place.oracle),
                        facts.prompt,
                        facts.group,
                        facts.quality,
                    ),
                )
            except sqlite3.IntegrityError:
                raise UserError(
                    f"{self.shard_set.images / place.image_shard}: sample '{place.key}' is in another shard too; "
                    "delete one of the shards"
                ) from None
            connection.executemany(
                "INSERT INTO objects VALUES (?, ?, ?)", [(number, *entry) for entry in facts.areas.items()]
            )
            progress(number)
        connection.executescript(_INDEXES)
        connection.commit()


def _as_text(members: tuple[Member, ...]) -> str:
    return json.dumps([astuple(member)[1:] for member in members])


def _members(key: str, text: str) -> tuple[Member, ...]:
    values: list[list[Any]] = json.loads(text)
    return tuple(Member(key, name, offset, size) for name, offset, size in values)
