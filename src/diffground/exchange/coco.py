"""COCO's files: instances, panoptic segments and label maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from diffground.atomic import atomic_file, write_atomically
from diffground.data.palette import VOC_PALETTE
from diffground.data.shards import encode_label, encode_png
from diffground.exchange.folder import write_once
from diffground.exchange.objects import Object, run_lengths
from diffground.exchange.plan import Plan
from diffground.exchange.polygons import simple_parts
from diffground.exchange.samples import ExportSample
from diffground.exchange.target import Format, Target


class CocoFormat(Format):
    """See target.Format.

    Annotations of each shard go to a file of their own, which `finish` joins one after another, so memory does not grow
    with the number of samples.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._shard: dict[str, dict[str, list[Any]]] = {}

    def add(self, sample: ExportSample) -> None:
        name, split = f"{sample.key}.png", sample.split
        write_once(self._root / "images" / split / name, lambda: sample.image_png)
        write_once(self._root / f"semantic_{split}" / name, lambda: encode_label(sample.label))
        write_once(self._root / "annotations" / f"panoptic_{split}" / name, lambda: _panoptic_png(sample))
        height, width = sample.size
        described = [self._annotation(found, sample) for found in sample.objects]
        lists = self._shard.setdefault(split, {"images": [], "instances": [], "panoptic": []})
        lists["images"].append({"id": sample.number, "file_name": name, "height": height, "width": width})
        lists["instances"] += described
        segments = [
            {"id": i, **{key: about[key] for key in ("category_id", "area", "bbox", "iscrowd")}}
            for i, about in enumerate(described, start=1)
        ]
        lists["panoptic"].append({"image_id": sample.number, "file_name": name, "segments_info": segments})

    def end_shard(self, name: str) -> None:
        write_atomically(self._target.work / f"{name}.json", json.dumps(self._shard, ensure_ascii=False))
        self._shard = {}

    def finish(self, plan: Plan) -> None:
        shards = [self._target.work / f"{path.stem}.json" for path in plan.shards]
        for split in self._target.splits:
            for kind in ("instances", "panoptic"):
                path = self._root / "annotations" / f"{kind}_{split}.json"
                if not path.exists():
                    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
                        self._join(shards, file, split=split, kind=kind)

    def _annotation(self, found: Object, sample: ExportSample) -> dict[str, Any]:
        """All but its id, which is its place among the annotations of all shards."""
        segmentation = _polygons(found) if self._target.polygons else run_lengths(found.in_image(sample.size))
        return {
            "image_id": sample.number,
            "category_id": found.label,
            "segmentation": segmentation,
            "area": found.area,
            "bbox": found.box,
            "iscrowd": 0,
        }

    def _join(self, shards: list[Path], file: TextIO, *, split: str, kind: str) -> None:
        numbers = count(1)

        def numbered(annotation: dict[str, Any]) -> dict[str, Any]:
            return {"id": next(numbers), **annotation} if kind == "instances" else annotation

        def listed(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[str]:
            separator = "\n"
            for path in shards:
                for entry in json.loads(path.read_text(encoding="utf-8")).get(split, {}).get(name, []):
                    yield separator + json.dumps(change(entry), ensure_ascii=False)
                    separator = ",\n"

        info = {"description": f"images of a diffusion model with grounded masks, split {split}"}
        file.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n')
        file.write(f'"categories": {json.dumps(self._categories(kind), ensure_ascii=False)},\n"images": [')
        file.writelines(listed("images", lambda entry: entry))
        file.write('],\n"annotations": [')
        file.writelines(listed(kind, numbered))
        file.write("]}\n")

    def _categories(self, kind: str) -> list[dict[str, Any]]:
        listed = self._target.categories.labels.items()
        categories: list[dict[str, Any]] = [{"id": i, "name": name, "supercategory": "object"} for i, name in listed]
        if kind == "panoptic":
            categories = [{**entry, "isthing": 1, "color": VOC_PALETTE[entry["id"]].tolist()} for entry in categories]
        return categories


def _polygons(found: Object) -> list[list[int]]:
    return [(part + found.corner).ravel().tolist() for part in simple_parts(found.mask)]


def _panoptic_png(sample: ExportSample) -> bytes:
    """RGB; segment i is R + 256 G + 65536 B = i, 0 is no segment."""
    numbers = np.zeros(sample.size, dtype=np.uint32)
    for i, found in enumerate(sample.objects, start=1):
        numbers[found.in_image(sample.size)] = i
    return encode_png(np.stack([(numbers >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)], axis=-1))
