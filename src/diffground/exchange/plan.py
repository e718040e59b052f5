"""Which samples an export keeps, and in which split: decided only from meta.json, before anything is written.

The decisions are rows of a temporary SQLite file, so memory does not grow with the number of samples.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from diffground.data.labelled import LabelledSample
from diffground.data.review import REJECTED, Review, with_masks_of_label
from diffground.data.shards import REMEDY, Member, Sample, list_members, list_shards, read_member
from diffground.errors import UserError
from diffground.exchange.samples import IMAGE, LABEL, META, Categories, Facts, read_facts
from diffground.exchange.split import draw, split_of

_MOST_VALUES = 5
"""Different values of one setting that the summary lists."""


@dataclass(frozen=True)
class Filters:
    """What is kept. None: no such rule."""

    shares: tuple[float, ...] = (1.0,)
    """Of train, val and test, see split.parse_split."""
    seed: int = 0
    """Of the split and of --per-category."""
    min_quality: float | None = None
    review: Review | None = None
    """Rejected samples are left out. A row without look is only compared by its prompt."""
    per_category: int | None = None


@dataclass
class Overview:
    """What the metadata of all samples say together."""

    num_samples: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """'quality', 'review', 'per_category' -> number of samples."""
    kept: Counter[str] = field(default_factory=Counter)
    """Split -> number of samples."""
    few: dict[str, int] = field(default_factory=dict)
    """Category -> kept samples, where these are fewer than --per-category."""
    seeds: tuple[int, int] | None = None
    """Smallest and largest."""
    settings: dict[str, list[Any]] = field(default_factory=dict)
    """Setting -> its different values, at most _MOST_VALUES of them."""
    digest: str = ""
    """Of all metadata: other shards have another one."""


class Plan:
    """The decisions for the shards of a folder; close it."""

    def __init__(self, shards: Path, *, filters: Filters, categories: Categories) -> None:
        """Reads meta.json of every sample.

        Raises: UserError for a shard that cannot be read, a sample without image, label map or a key that a rule
        needs, an id that comes twice, a category without a name, and a row of the review that fits no sample.
        """
        self._filters, self._categories = filters, categories
        self.shards = list_shards(shards)
        self.overview = Overview()
        self._rows = sqlite3.connect("")  # a file without a name, which ends with the process
        self._rows.execute("PRAGMA journal_mode=OFF")
        self._rows.execute("PRAGMA synchronous=OFF")
        self._rows.execute(
            "CREATE TABLE samples (number INTEGER PRIMARY KEY, shard TEXT, key TEXT UNIQUE, split TEXT, place REAL, "
            "categories TEXT, left_out TEXT)"
        )
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._rows.close()

    def kept(self, shard: str) -> dict[str, tuple[int, str]]:
        """Key -> number and split of the kept samples of a shard, given by its name without .tar."""
        rows = self._rows.execute(
            "SELECT key, number, split FROM samples WHERE shard = ? AND left_out IS NULL ORDER BY number", (shard,)
        )
        return {key: (number, split) for key, number, split in rows}

    def keys(self, *splits: str) -> Iterator[str]:
        """Keys of the kept samples of these splits, in the order of the shards."""
        marks = ",".join("?" * len(splits))
        query = f"SELECT key FROM samples WHERE left_out IS NULL AND split IN ({marks}) ORDER BY number"
        return (key for (key,) in self._rows.execute(query, splits))

    def _read(self) -> None:
        digest, reviewed = hashlib.sha256(), set[str]()
        for path in self.shards:
            for key, members in groupby(list_members(path), key=lambda member: member.key):
                by_name = {member.name: member for member in members}
                place = f"{path}: sample '{key}'"
                for name in (IMAGE, LABEL, META):
                    if name not in by_name:
                        raise UserError(f"{place} has no member '{name}'; {REMEDY}")
                content = read_member(path, by_name[META])
                sizes = [by_name[name].size for name in (IMAGE, LABEL)]
                digest.update(f"{path.name}\0{key}\0{sizes}\0".encode() + content)
                facts = read_facts(content, place=place)
                self._add(path, key, facts, self._verdict(path, key, by_name, facts, place), place)
                if self._is_reviewed(key):
                    reviewed.add(key)
        self.overview.digest = digest.hexdigest()
        self._require_known(reviewed)
        self._rows.execute("CREATE INDEX of_shard ON samples (shard)")
        if self._filters.per_category is not None:
            self._limit_categories(self._filters.per_category)
        counted = self._rows.execute("SELECT split, COUNT(*) FROM samples WHERE left_out IS NULL GROUP BY split")
        self.overview.kept.update(dict(counted))
        self._rows.commit()

    def _add(self, path: Path, key: str, facts: Facts, left_out: str | None, place: str) -> None:
        split = split_of(facts.prompt, self._filters.shares, seed=self._filters.seed)
        names = json.dumps(sorted(set(facts.categories)))
        row = (path.stem, key, split, draw(key, seed=self._filters.seed), names, left_out)
        try:
            self._rows.execute(
                "INSERT INTO samples (shard, key, split, place, categories, left_out) VALUES (?, ?, ?, ?, ?, ?)", row
            )
        except sqlite3.IntegrityError:
            raise UserError(f"{place}: another shard has a sample of this name; delete one of the shards") from None
        overview = self.overview
        overview.num_samples += 1
        if left_out:
            overview.left_out[left_out] += 1
        if facts.seed is not None:
            low, high = overview.seeds or (facts.seed, facts.seed)
            overview.seeds = (min(low, facts.seed), max(high, facts.seed))
        for name, value in facts.settings.items():
            values = overview.settings.setdefault(name, [])
            if value not in values and len(values) < _MOST_VALUES:
                values.append(value)

    def _verdict(self, path: Path, key: str, members: dict[str, Member], facts: Facts, place: str) -> str | None:
        """Why the sample is left out; None where it is kept."""
        for name in facts.categories:
            if name not in self._categories.used:
                raise UserError(
                    f"{place} is of category '{name}', which is not one of the {len(self._categories.used)} of the "
                    "vocabulary; set the vocabulary of params.yaml to that of the shards"
                )
        if self._filters.min_quality is not None:
            if facts.quality is None:
                raise UserError(
                    f"{place} has no 'quality' in {META}, which --min-quality needs; run `dvc repro -f synthesize` "
                    "with a version that writes it, or leave --min-quality out"
                )
            if facts.quality < self._filters.min_quality:
                return "quality"
        if self._filters.review is not None and self._is_reviewed(key):
            sample = Sample(key, {name: read_member(path, member) for name, member in members.items()}, path)
            if self._review_verdict(self._filters.review, LabelledSample(sample)) == REJECTED:
                return "review"
        return None

    def _review_verdict(self, review: Review, sample: LabelledSample) -> str | None:
        entry = review.entries[sample.key]
        if not entry.look and entry.prompt == sample.prompt:
            return entry.verdict
        return review.verdict(with_masks_of_label(sample, self._categories.names))

    def _is_reviewed(self, key: str) -> bool:
        return self._filters.review is not None and key in self._filters.review.entries

    def _require_known(self, reviewed: set[str]) -> None:
        review = self._filters.review
        for entry in review.entries.values() if review else ():
            if entry.id not in reviewed:
                raise UserError(
                    f"{review.path if review else ''}, line {entry.line}: '{entry.id}' is not one of the "
                    f"{self.overview.num_samples} samples; delete the line, or export the shards that were reviewed"
                )

    def _limit_categories(self, limit: int) -> None:
        """Keep samples in the drawn order as long as none of their categories has `limit` of them."""
        kept = Counter[str]()
        self._rows.execute("CREATE TEMP TABLE surplus (number INTEGER PRIMARY KEY)")
        ordered = self._rows.execute(
            "SELECT number, categories FROM samples WHERE left_out IS NULL ORDER BY place, number"
        )
        for number, text in ordered:
            names = json.loads(text)
            if any(kept[name] >= limit for name in names):
                self._rows.execute("INSERT INTO surplus VALUES (?)", (number,))
                self.overview.left_out["per_category"] += 1
            else:
                kept.update(names)
        self._rows.execute("UPDATE samples SET left_out = 'per_category' WHERE number IN (SELECT number FROM surplus)")
        self.overview.few = {name: kept[name] for name in self._categories.used if kept[name] < limit}
