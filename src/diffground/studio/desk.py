"""Which sample a reviewer sees next, and what they are told about it; without Gradio."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from diffground.data.labelled import LabelledSample
from diffground.data.review import ACCEPTED, REJECTED, Review, ReviewEntry
from diffground.studio.index import SampleIndex
from diffground.studio.verdicts import VerdictFile

Shown = Literal["not reviewed", "all", "accepted", "rejected"]
SHOWN: tuple[Shown, ...] = ("not reviewed", "all", "accepted", "rejected")
Cursor = tuple[float, int]
"""Quality and number of a sample: samples are ordered by both."""


@dataclass(frozen=True)
class Filter:
    """Which samples are paged through."""

    category: str | None = None
    group: str | None = None
    max_quality: float = 1.0
    shown: Shown = "not reviewed"


@dataclass(frozen=True)
class Card:
    """One sample and its place among those of the filter."""

    number: int
    cursor: Cursor
    sample: LabelledSample
    quality: float
    group: str
    entry: ReviewEntry | None
    problem: str | None
    """Why the verdict is not about this sample any more."""
    place: int
    """From 1; 0: the filter does not show it, because its verdict has changed."""
    num: int
    """Samples that the filter shows."""


@dataclass(frozen=True)
class Counts:
    """Of the whole set."""

    num: int
    accepted: int
    rejected: int
    foreign: int
    """Verdicts on samples that are not in the set."""


class Desk:
    """A set of shards and the file of its verdicts."""

    def __init__(self, index: SampleIndex, verdicts: VerdictFile) -> None:
        self.index, self.verdicts = index, verdicts

    def card(
        self,
        chosen: Filter,
        cursor: Cursor | None,
        *,
        move: Literal["first", "stay", "next", "previous"],
        progress: Callable[[int], None] = lambda _: None,
    ) -> Card | None:
        """The sample at, after or before `cursor`, lowest quality first; None where the filter shows no sample.

        After the last one comes the last one again. 'stay' also gives a sample that the filter no longer shows.
        Raises: UserError for shards or verdicts that cannot be read.
        """
        review = self.verdicts.read()
        with self.index.rows(progress=progress) as rows:
            listed, values = _listed(rows, chosen, review)
            values["quality"], values["number"] = cursor or (0.0, 0)

            def first(order: str, condition: str = "TRUE") -> Cursor | None:
                query = f"SELECT quality, number {listed} AND {condition} ORDER BY quality {order}, number {order}"
                found: Cursor | None = rows.execute(query, values).fetchone()
                return found

            target = cursor if move == "stay" else None
            if cursor is not None and move == "next":
                target = first("ASC", "(quality, number) > (:quality, :number)") or first("DESC")
            elif cursor is not None and move == "previous":
                target = first("DESC", "(quality, number) < (:quality, :number)")
            target = target or first("ASC")
            if target is None:
                return None
            quality, number = values["quality"], values["number"] = target
            query = f"SELECT COUNT(*), SUM((quality, number) <= (:quality, :number)), SUM(number = :number) {listed}"
            num, place, is_listed = rows.execute(query, values).fetchone()
            sample = self.index.shard_set.read(self.index.place(rows, number))
            [group] = rows.execute("SELECT family FROM samples WHERE number = ?", (number,)).fetchone()
        entry = review.entries.get(sample.key)
        problem = entry.problem_with(sample) if entry else None
        return Card(number, target, sample, quality, group, entry, problem, place if is_listed else 0, num)

    def counts(self) -> Counts:
        review = self.verdicts.read()
        with self.index.rows() as rows:
            [num] = rows.execute("SELECT COUNT(*) FROM samples").fetchone()
            verdicts = Counter(
                entry.verdict if _has(rows, entry.id) else "foreign" for entry in review.entries.values()
            )
        return Counts(num, verdicts[ACCEPTED], verdicts[REJECTED], verdicts["foreign"])

    def choices(self) -> tuple[list[str], list[str]]:
        """Categories and groups that occur."""
        with self.index.rows() as rows:
            categories = [name for (name,) in rows.execute("SELECT DISTINCT category FROM objects ORDER BY category")]
            groups = [name for (name,) in rows.execute("SELECT DISTINCT family FROM samples ORDER BY family") if name]
        return categories, groups

    def drop_foreign(self) -> int:
        """Remove the verdicts on samples that are not in the set. Returns: how many there were."""
        with self.index.rows() as rows:
            known = {entry.id for entry in self.verdicts.read().entries.values() if _has(rows, entry.id)}
        return self.verdicts.drop(known)


def _has(rows: sqlite3.Connection, key: str) -> bool:
    return rows.execute("SELECT 1 FROM samples WHERE key = ?", (key,)).fetchone() is not None


def _listed(rows: sqlite3.Connection, chosen: Filter, review: Review) -> tuple[str, dict[str, float | str]]:
    """The samples of the filter, as the end of a query, and its values."""
    rows.create_function("verdict", 1, lambda key: entry.verdict if (entry := review.entries.get(key)) else SHOWN[0])
    conditions, values = ["quality <= :max_quality"], dict[str, float | str](max_quality=chosen.max_quality)
    for value, name, condition in (
        (chosen.group, "family", "family = :family"),
        (chosen.category, "category", "number IN (SELECT sample FROM objects WHERE category = :category)"),
        (chosen.shown if chosen.shown != "all" else None, "shown", "verdict(key) = :shown"),
    ):
        if value:
            conditions.append(condition)
            values[name] = value
    return f"FROM samples WHERE {' AND '.join(conditions)}", values
