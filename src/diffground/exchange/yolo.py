"""YOLO's format of segmentation: one text file per image, one polygon per object."""

from __future__ import annotations

import numpy as np
import yaml

from diffground.exchange.folder import write_once
from diffground.exchange.plan import Plan
from diffground.exchange.polygons import joined
from diffground.exchange.samples import ExportSample
from diffground.exchange.target import Format


class YoloFormat(Format):
    """See target.Format."""

    def add(self, sample: ExportSample) -> None:
        write_once(self._root / "images" / sample.split / f"{sample.key}.png", lambda: sample.image_png)
        write_once(self._root / "labels" / sample.split / f"{sample.key}.txt", lambda: _lines(sample).encode())

    def finish(self, plan: Plan) -> None:
        splits = self._target.splits
        # Ultralytics needs both keys; where there is no such split, it is the first one
        folders = {name: f"images/{name if name in splits else splits[0]}" for name in ("train", "val")}
        further = {name: f"images/{name}" for name in splits if name not in folders}
        names = dict(enumerate(self._target.categories.names))
        text = yaml.safe_dump({**folders, **further, "names": names}, sort_keys=False, allow_unicode=True)
        write_once(self._root / "data.yaml", lambda: text.encode())


def _lines(sample: ExportSample) -> str:
    """One line per object."""
    height, width = sample.size
    lines = []
    for found in sample.objects:
        points = (joined(found.mask) + found.corner) / np.array([width, height])  # (N, 2)
        numbers = " ".join(f"{value:.6f}".rstrip("0").rstrip(".") for value in points.ravel().tolist())
        lines.append(f"{found.label - 1} {numbers}\n")
    return "".join(lines)
