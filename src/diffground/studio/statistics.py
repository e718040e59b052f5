"""What the samples of a set have in common, counted by SQLite from the list of samples."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from itertools import pairwise

SIZES = (0.01, 0.05, 0.1, 0.25, 0.5)
"""Bounds between the sizes of masks, shares of the image."""
SIZE_TITLES = ("< 1 %", "1–5 %", "5–10 %", "10–25 %", "25–50 %", "≥ 50 %")
_SHEET_MULTIPLIER = 2_654_435_761
"""Knuth's, by which numbers are mixed to draw a sheet."""


@dataclass(frozen=True)
class CategoryCounts:
    """One category."""

    name: str
    num: int
    """Images in which it has a mask."""
    missing: int
    """Images whose prompt names it without any pixel of it."""
    sizes: tuple[int, ...]
    """Images by the share of its mask, see SIZE_TITLES."""


def count_categories(rows: sqlite3.Connection) -> list[CategoryCounts]:
    """Every category that a prompt names, the most frequent first."""
    bounds = (1e-9, *SIZES, 2.0)
    sizes = ", ".join(f"SUM(area >= {low} AND area < {high})" for low, high in pairwise(bounds))
    query = (
        f"SELECT category, SUM(area > 0) AS num, SUM(area <= 0), {sizes} FROM objects "
        "GROUP BY category ORDER BY num DESC, category"
    )
    return [CategoryCounts(name, num, missing, tuple(found)) for name, num, missing, *found in rows.execute(query)]


def count_pairs(rows: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """Categories that share an image, in alphabetical order -> number of images."""
    query = (
        "SELECT a.category, b.category, COUNT(*) FROM objects a JOIN objects b ON a.sample = b.sample "
        "AND a.category < b.category WHERE a.area > 0 AND b.area > 0 GROUP BY a.category, b.category"
    )
    return {(first, second): num for first, second, num in rows.execute(query)}


def count_samples(rows: sqlite3.Connection) -> tuple[int, float]:
    """Number of samples, and their mean quality."""
    num, quality = rows.execute("SELECT COUNT(*), AVG(quality) FROM samples").fetchone()
    return num, quality or 0.0


def draw_samples(rows: sqlite3.Connection, category: str | None, *, num: int, seed: int) -> list[int]:
    """Numbers of up to `num` samples with a mask of `category`, drawn by `seed`. None: any category."""
    mixed = f"(({{0}} + {int(seed)} * 7919) * {_SHEET_MULTIPLIER}) % 4294967291"
    if category is None:
        query, values = f"SELECT number FROM samples ORDER BY {mixed.format('number')} LIMIT ?", (num,)  # type: str, tuple[object, ...]
    else:
        query = f"SELECT sample FROM objects WHERE category = ? AND area > 0 ORDER BY {mixed.format('sample')} LIMIT ?"
        values = (category, num)
    return [number for (number,) in rows.execute(query, values)]
