"""What every format writes to, and what it must do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from diffground.exchange.plan import Plan
from diffground.exchange.samples import Categories, ExportSample


@dataclass(frozen=True)
class Target:
    """One format's folder."""

    root: Path
    work: Path
    """For files that are deleted when the export is complete."""
    categories: Categories
    splits: tuple[str, ...]
    """Those that have samples, in the order train, val, test."""
    polygons: bool = False
    """Of format 'coco': polygons instead of run lengths."""


@dataclass(frozen=True)
class About:
    """What the card says of a format."""

    layout: str
    """Lines of Markdown: which files there are, and what is lost in them."""
    example: str
    """Python that opens the export, run in its folder."""


class Format(Protocol):
    """Writes samples one after another. A file that is there is finished and is not written again.

    `end_shard` comes after the last sample of each shard; a shard whose end was reached is never added again.
    """

    about: About

    def __init__(self, target: Target) -> None: ...

    def add(self, sample: ExportSample) -> None: ...

    def end_shard(self, name: str) -> None: ...

    def finish(self, plan: Plan) -> None:
        """Write what needs all shards."""
        ...
