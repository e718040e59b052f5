"""YOLO's format of segmentation: one text file per image, one polygon per object."""

from __future__ import annotations

import numpy as np
import yaml

from diffground.exchange.folder import write_once
from diffground.exchange.plan import Plan
from diffground.exchange.polygons import joined
from diffground.exchange.samples import ExportSample
from diffground.exchange.target import About, Target


class YoloFormat:
    """See target.Format."""

    about = About(
        layout="""- `images/SPLIT/ID.png`: the images, without loss.
- `labels/SPLIT/ID.txt`: a line per object: class, then x and y of its polygon's points, in shares of width and height.
  Class i is label i + 1 of the table. Objects are connected regions of one category; an image without objects has an
  empty file.
- Polygons run along the edges of pixels. The format has no holes: a hole is joined to the outline by a bridge of
  width 0, so it stays empty where a reader fills by the even-odd rule. Readers that draw the outline too add a line of
  one pixel there.
- Ignored pixels (255) are background here: the format has no such label.
- `data.yaml`: folders and names.""",
        example="""import supervision

dataset = supervision.DetectionDataset.from_yolo(
    images_directory_path="images/{split}",
    annotations_directory_path="labels/{split}",
    data_yaml_path="data.yaml",
    force_masks=True,
)
path, image, detections = dataset[0]  # detections.mask: bool (N, H, W)
""",
    )

    def __init__(self, target: Target) -> None:
        self._target = target

    def add(self, sample: ExportSample) -> None:
        root = self._target.root
        write_once(root / "images" / sample.split / f"{sample.key}.png", lambda: sample.image_png)
        write_once(root / "labels" / sample.split / f"{sample.key}.txt", lambda: _lines(sample).encode())

    def end_shard(self, name: str) -> None:
        pass

    def finish(self, plan: Plan) -> None:
        splits = self._target.splits
        # Ultralytics needs both keys; where there is no such split, it is the first one
        folders = {name: f"images/{name if name in splits else splits[0]}" for name in ("train", "val")}
        further = {name: f"images/{name}" for name in splits if name not in folders}
        names = dict(enumerate(self._target.categories.names))
        text = yaml.safe_dump({**folders, **further, "names": names}, sort_keys=False, allow_unicode=True)
        write_once(self._target.root / "data.yaml", lambda: text.encode())


def _lines(sample: ExportSample) -> str:
    """One line per object."""
    height, width = sample.size
    lines = []
    for found in sample.objects:
        points = (joined(found.mask) + found.corner) / np.array([width, height])  # (N, 2)
        numbers = " ".join(f"{value:.6f}".rstrip("0").rstrip(".") for value in points.ravel().tolist())
        lines.append(f"{found.label - 1} {numbers}\n")
    return "".join(lines)
