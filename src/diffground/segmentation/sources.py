"""Where a segmenter's training images come from. A source is a sequence of (image uint8 (H, W, 3), label uint8 (H, W));
labels: 0 background, 1..K categories, 255 ignored."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import numpy as np

from diffground.data.palette import IGNORE
from diffground.data.shards import decode_label, decode_png, read_samples
from diffground.errors import UserError


class SegmentationSource(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]: ...


class ShardSource:
    """Shards of stage `synthesize` or `text2mask`. They stay in memory, compressed.

    Raises: UserError when the folder has no shards or one of them is damaged or holds other samples.
    """

    def __init__(self, folder: Path) -> None:
        self._samples: list[tuple[bytes, bytes]] = []
        for sample in read_samples(folder):
            if "image.png" not in sample.members or "label.png" not in sample.members:
                raise UserError(f"{folder}: sample '{sample.key}' has no image or label; run `dvc repro`")
            self._samples.append((sample.members["image.png"], sample.members["label.png"]))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = self._samples[i]
        return decode_png(image), decode_label(label)


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
    """Another source with the pixels of some labels set to 255: what one has when nobody labelled these categories."""

    def __init__(self, source: SegmentationSource, *, hidden: Collection[int]) -> None:
        self._source = source
        self._hidden = sorted(hidden)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = self._source[i]
        return image, np.where(np.isin(label, self._hidden), np.uint8(IGNORE), label)
