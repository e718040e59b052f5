"""Where a segmenter's training images come from. A source is a sequence of (image uint8 (H, W, 3), label uint8 (H, W));
labels: 0 background, 1..K categories, 255 ignored."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from diffground.data.labelled import list_label_maps
from diffground.data.palette import IGNORE
from diffground.data.shards import list_shards
from diffground.errors import UserError


class SegmentationSource(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]: ...


HELD_OUT_EVERY = 10
"""Where there are no real validation images, every tenth synthetic one is held out to score segmenters on."""


class ShardSource:
    """Shards of stage `synthesize` or `text2mask`. They stay on disk; only the position of each member is in memory.

    part: all samples, every tenth ('held_out'), or the others ('training').
    min_quality: samples below it are left out, 0..1; above 0, each sample's record is read.
    Raises: UserError when the folder has no shards, one of them is damaged or holds other samples, or none is left.
    """

    def __init__(
        self, folder: Path, *, part: Literal["all", "training", "held_out"] = "all", min_quality: float = 0.0
    ) -> None:
        stored = [sample for path in list_shards(folder) for sample in list_label_maps(path)]
        held_out = stored[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
        if part == "held_out" and not held_out:
            raise UserError(
                f"{folder}: {len(stored)} images are too few to hold out every {HELD_OUT_EVERY}th; raise "
                f"prompts.synthesis_per_category"
            )
        if part == "training":
            stored = [sample for i, sample in enumerate(stored, start=1) if i % HELD_OUT_EVERY]
        chosen = held_out if part == "held_out" else stored
        self._samples = [sample for sample in chosen if not min_quality or sample.quality() >= min_quality]
        self.num_rejected = len(chosen) - len(self._samples)
        """Samples below `min_quality`."""
        if not self._samples:
            raise UserError(f"{folder}: no sample has a quality of {min_quality:g}; lower segmenter.min_quality")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self._samples[i].read()


class Joined:
    """The images of several sources, one after another."""

    def __init__(self, *sources: SegmentationSource) -> None:
        self._sources = sources

    def __len__(self) -> int:
        return sum(map(len, self._sources))

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        for source in self._sources:
            if i < len(source):
                return source[i]
            i -= len(source)
        raise IndexError(i)


class WithoutLabels:
    """Another source with the pixels of some labels set to 255, as if nobody had labelled these categories."""

    def __init__(self, source: SegmentationSource, *, hidden: Collection[int]) -> None:
        self._source = source
        self._hidden = sorted(hidden)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = self._source[i]
        return image, np.where(np.isin(label, self._hidden), np.uint8(IGNORE), label)
