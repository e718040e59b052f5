"""What every format writes to, and what it must do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

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


class Format(ABC):
    """Writes samples one after another. A file that is there is finished and is not written again."""

    def __init__(self, target: Target) -> None:
        self._target, self._root = target, target.root

    @abstractmethod
    def add(self, sample: ExportSample) -> None: ...

    def end_shard(self, name: str) -> None:  # noqa: B027 - most formats have nothing to do here
        """Comes after the last sample of each shard; a shard whose end was reached is never added again."""

    def finish(self, plan: Plan) -> None:  # noqa: B027
        """Write what needs all shards."""
