"""PASCAL VOC's devkit, as torchvision's VOCSegmentation opens it."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from diffground.atomic import atomic_file
from diffground.data.palette import IGNORE
from diffground.data.shards import encode_label
from diffground.exchange.folder import write_once
from diffground.exchange.plan import Plan
from diffground.exchange.samples import ExportSample
from diffground.exchange.target import Format, Target

_JPEG_QUALITY = 95  # also named in card.yaml
_LISTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}


class VocFormat(Format):
    """See target.Format."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._root = target.root / "VOCdevkit" / "VOC2012"

    def add(self, sample: ExportSample) -> None:
        write_once(self._root / "SegmentationClass" / f"{sample.key}.png", lambda: encode_label(sample.label))
        write_once(self._root / "SegmentationObject" / f"{sample.key}.png", lambda: encode_label(object_map(sample)))
        jpeg = self._root / "JPEGImages" / f"{sample.key}.jpg"
        write_once(jpeg, lambda: _jpeg(sample.image))

    def finish(self, plan: Plan) -> None:
        for name, splits in _LISTS.items():
            path = self._root / "ImageSets" / "Segmentation" / f"{name}.txt"
            if not path.exists():
                with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
                    file.writelines(f"{key}\n" for key in plan.keys(*splits))


def object_map(sample: ExportSample) -> np.ndarray:
    """uint8 (H, W): object n as n, 255 for ignored pixels and objects after the 254th."""
    numbers = np.zeros(sample.size, dtype=np.uint8)
    for number, found in enumerate(sample.objects, start=1):
        numbers[found.in_image(sample.size)] = min(number, IGNORE)
    numbers[sample.label == IGNORE] = IGNORE
    return numbers


def _jpeg(image: np.ndarray) -> bytes:
    """uint8 (H, W, 3) -> JPEG with colours at full resolution (4:4:4)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
