"""PASCAL VOC's devkit, as torchvision's VOCSegmentation opens it."""

from __future__ import annotations

import numpy as np

from diffground.atomic import atomic_file
from diffground.data.palette import IGNORE
from diffground.data.shards import encode_label
from diffground.exchange.folder import write_once
from diffground.exchange.plan import Plan
from diffground.exchange.samples import ExportSample, encode_jpeg
from diffground.exchange.target import About, Target

JPEG_QUALITY = 95
_LISTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}


class VocFormat:
    """See target.Format."""

    about = About(
        layout=f"""- `VOCdevkit/VOC2012/JPEGImages`: the images, JPEG of quality {JPEG_QUALITY} (4:4:4). JPEG loses
  a little; the other formats keep the generator's PNG.
- `SegmentationClass`: label maps with the VOC palette, 0 background, category i of the table as its label, 255 ignored.
- `SegmentationObject`: object n as n, 255 ignored. Objects are connected regions of one category. Objects after the
  254th of an image are 255 there.
- `ImageSets/Segmentation/{{train,val,trainval,test}}.txt`: the splits.""",
        example="""from torchvision.datasets import VOCSegmentation

dataset = VOCSegmentation(".", year="2012", image_set="trainval")
image, label = dataset[0]  # PIL images; numpy.asarray(label) has the labels
""",
    )

    def __init__(self, target: Target) -> None:
        self._root = target.root / "VOCdevkit" / "VOC2012"

    def add(self, sample: ExportSample) -> None:
        write_once(self._root / "SegmentationClass" / f"{sample.key}.png", lambda: encode_label(sample.label))
        write_once(self._root / "SegmentationObject" / f"{sample.key}.png", lambda: encode_label(object_map(sample)))
        jpeg = self._root / "JPEGImages" / f"{sample.key}.jpg"
        write_once(jpeg, lambda: encode_jpeg(sample.image, quality=JPEG_QUALITY))

    def end_shard(self, name: str) -> None:
        pass

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
