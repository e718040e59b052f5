"""Shards as stage synthesize writes them, of drawn pictures whose objects and holes are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffground.data.labelled import image_sample
from diffground.data.shards import Sample, write_shard
from diffground.exchange.samples import Categories

NAMES = ("cat", "dog", "cow", "bus")
CATEGORIES = Categories(names=NAMES, used=("cat", "dog", "bus"))
SETTINGS = {
    "generator": "0123abcd",
    "grounding": "4567efab",
    "image_size": 48,
    "sampler": "dpmsolver++",
    "num_steps": 6,
    "mask_threshold": 0.5,
    "libraries": {"torch": "2.15.0"},
}


def drawn_label(number: int, size: int = 48) -> np.ndarray:
    """uint8 (size, size): a ring of cat, two boxes of dog, a bus with two holes, by turns with ignored pixels."""
    label = np.zeros((size, size), dtype=np.uint8)
    y, x = np.mgrid[:size, :size]
    r = np.hypot(y - 0.35 * size - number % 3, x - 0.35 * size)
    label[(r < 0.3 * size) & (r > 0.12 * size)] = 1
    if number % 2:
        label[size - 8 : size - 2, 2:9] = 2
        label[size - 8 : size - 2, 14 : 15 + number % 4] = 2
    if number % 3 == 0:
        label[2 : size - 4, size - 12 : size - 2] = 4
        label[6:9, size - 9 : size - 5] = 0
        label[14, size - 7] = 0
    if number % 5 == 0:
        label[0, :] = 255
    return label


def drawn_sample(number: int, *, size: int = 48, **more: Any) -> Sample:
    """Sample `synthesis-000003` with the names of its objects; three in a row share a prompt."""
    label = drawn_label(number, size)
    present = [NAMES[value - 1] for value in np.unique(label).tolist() if value not in (0, 255)]
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    settings = {**SETTINGS, "quality": round(number % 10 / 10, 1), **more}
    return image_sample(
        id=f"synthesis-{number:06d}",
        prompt=f"a photograph of scene {number // 3}",
        categories=present or ["cat"],
        settings={key: value for key, value in settings.items() if value is not None},
        image=image,
        label=label,
        seed=1000 + number,
        source="template",
    )


def write_shards(folder: Path, *, num: int = 30, per_shard: int = 8, size: int = 48, **more: Any) -> Path:
    """`num` samples in shards of `per_shard`; returns the folder."""
    for shard, start in enumerate(range(0, num, per_shard)):
        numbers = range(start, min(start + per_shard, num))
        write_shard(folder / f"{shard:06d}.tar", (drawn_sample(i, size=size, **more) for i in numbers))
    return folder


def files_of(folder: Path) -> Mapping[str, bytes]:
    """Relative path -> content of every file."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in _walk(folder)}


def _walk(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def keys(numbers: Sequence[int]) -> list[str]:
    return [f"synthesis-{number:06d}" for number in numbers]
