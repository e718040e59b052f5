"""COCO 2017 as semantic label maps in PASCAL VOC layout: the real images of COCO-sim.

<source>/{train,val}2017/<file>.jpg
<source>/annotations/instances_{train,val}2017.json     objects, which may overlap
<source>/annotations/panoptic_{train,val}2017.json      with panoptic_{train,val}2017/<file>.png next to it: segments,
                                                        which do not (optional)
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from diffground.data.coco_files import check_files, choose, labels_by_id, object_number, read_json
from diffground.data.image_lists import id_of, sample_ids
from diffground.data.palette import IGNORE
from diffground.data.voc import VocItem, count_pairs, write_voc
from diffground.errors import UserError
from diffground.runtime.progress import Progress
from diffground.vocabulary import Vocabulary, load_vocabulary


@dataclass(frozen=True)
class CocoSummary:
    """What convert_coco wrote."""

    num_images: int
    num_empty: int
    """Images without a pixel of any category."""
    pairs: Mapping[tuple[int, int], int]
    """Number of images of each pair of labels a < b that share one."""

    def __str__(self) -> str:
        return (
            f"{self.num_images} images, {self.num_empty} of them without any category; "
            f"{len(self.pairs)} pairs of categories share an image"
        )


def coco_labels(vocabulary: Vocabulary | None = None) -> dict[str, int]:
    """COCO's name of a category -> its label in the vocabulary, in label order.

    None: the built-in 'coco', COCO-sim's labels 1..79 ('mouse' has none).

    COCO's name is the vocabulary's name for the detector: 'tv' for 'tvmonitor'.
    """
    names = (vocabulary or load_vocabulary("coco")).detector_names
    return {name or category: i + 1 for i, (category, name) in enumerate(names.items())}


def convert_coco(
    source: Path,
    root: Path,
    *,
    split: str,
    image_list: str,
    labels: Mapping[str, int] | None = None,
    num_images: int | None = None,
    seed: int = 0,
    annotations: str = "instances",
) -> CocoSummary:
    """Write the images of one split of COCO 2017, with label and object maps, as list `image_list` of devkit `root`.

    `split`: 'train' (118,287 images) or 'val' (5,000, those of the paper's evaluation). `labels`: COCO's category name
    -> label 1..254, by default coco_labels(); a category that is not in it is background, and covers what it lies on.
    `num_images`: a random subset, drawn with `seed`; a larger one contains a smaller one of the same seed.
    `annotations`: 'instances' or 'panoptic', see InstanceAnnotations and PanopticAnnotations.

    One mask is in memory at a time, and the whole annotation file (about 3 GB for the training split).

    Raises: UserError for a missing or damaged file, before anything is written where it can be known, and for a number
    of images that the split does not have.
    """
    if split not in ("train", "val"):
        raise UserError(f"COCO split must be 'train' or 'val', got '{split}'")
    if annotations not in _READERS:
        raise UserError(f"COCO annotations must be one of {', '.join(_READERS)}, got '{annotations}'")
    reader = _READERS[annotations](
        source / "annotations" / f"{annotations}_{split}2017.json", coco_labels() if labels is None else labels
    )
    folder = source / f"{split}2017"
    chosen = choose(reader.images, num_images, seed)
    reader.check_files(chosen)
    names = [image["file_name"] for image in chosen]
    check_files(folder, names, what="images", remedy="run `diffground fetch coco2017` or complete the folder")
    return write_annotated(reader, chosen, folder, root, image_list, description=f"COCO {split}2017")


def write_annotated(
    reader: AnnotationReader,
    images: Sequence[Mapping[str, Any]],
    folder: Path,
    root: Path,
    image_list: str,
    *,
    description: str,
) -> CocoSummary:
    """Write the image records `images` of `reader`, whose files lie in `folder`, as list `image_list` of devkit `root`.

    Raises: UserError as reader.label_maps does, and, before the list is written, when no image has a labelled pixel.
    """
    present: list[np.ndarray] = []  # labels of each image
    names = sample_ids(id_of(Path(image["file_name"])) for image in images)

    def items() -> Iterator[VocItem]:
        with Progress(len(images), description=description) as progress:
            for image in images:
                label, objects = reader.label_maps(image)
                present.append(np.unique(label))
                path = folder / image["file_name"]
                yield VocItem(id=names[id_of(Path(image["file_name"]))], image=path, label=label, objects=objects)
                progress.advance()
        if num_empty() == len(images):
            raise UserError(
                f"list '{image_list}': none of its {len(images)} images has a pixel of a labelled category, the first "
                f"is {folder / images[0]['file_name']}; check the annotations, or take more images"
            )

    def num_empty() -> int:
        return sum(set(values.tolist()) <= {0, IGNORE} for values in present)

    num_written = write_voc(root, image_list, items())
    return CocoSummary(num_images=num_written, num_empty=num_empty(), pairs=count_pairs(present))


class AnnotationReader(Protocol):
    """`images`: the file's image records, by id. `label_maps`: label and object map of one, uint8 (H, W) each.
    `check_files`: UserError when a file that label_maps reads for one of these images is missing."""

    images: Sequence[Mapping[str, Any]]

    def check_files(self, images: Sequence[Mapping[str, Any]]) -> None: ...

    def label_maps(self, image: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]: ...


class InstanceAnnotations:
    """instances_*.json. Of two objects that overlap, the one with fewer pixels lies on top (of equal ones, that with
    the greater id). Crowd regions of a labelled category are 255 where no object lies.

    Raises: UserError when the file is missing, damaged, or lacks a category of `labels`.
    """

    def __init__(self, path: Path, labels: Mapping[str, int]) -> None:
        content = self._read(path)
        self._path = path
        self._label_of = self._labels_by_id(content["categories"], labels)
        self._index = COCO()
        self._index.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            self._index.createIndex()
        self.images: Sequence[Mapping[str, Any]] = [self._index.imgs[id_] for id_ in sorted(self._index.imgs)]

    def _read(self, path: Path) -> dict[str, Any]:
        return read_json(path, ("images", "annotations", "categories"))

    def _labels_by_id(self, categories: Sequence[Mapping[str, Any]], labels: Mapping[str, int]) -> dict[int, int]:
        return labels_by_id(self._path, categories, labels)

    def check_files(self, images: Sequence[Mapping[str, Any]]) -> None:
        """There are none in addition to the annotation file."""

    def label_maps(self, image: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Label and object map, uint8 (H, W); objects are numbered from the bottom up.

        Raises: UserError for an annotation whose mask cannot be read, and for more than 254 objects.
        """
        label = np.zeros((image["height"], image["width"]), dtype=np.uint8)
        objects = np.zeros_like(label)
        crowds, instances = [], []
        for annotation in self._index.imgToAnns[image["id"]]:
            encoded, value = self._encoded(annotation, label.shape)
            if not annotation.get("iscrowd"):
                instances.append((-int(run_lengths.area(encoded)), annotation["id"], encoded, value))
            elif value:
                crowds.append(encoded)
        for encoded in crowds:
            mask = run_lengths.decode(encoded).astype(bool)
            label[mask] = objects[mask] = IGNORE
        number = 0
        for _, _, encoded, value in sorted(instances, key=lambda instance: instance[:2]):
            mask = run_lengths.decode(encoded).astype(bool)
            number += value > 0
            label[mask], objects[mask] = value, (object_number(self._path, image, number) if value else 0)
        return label, objects

    def _encoded(self, annotation: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[dict[str, Any], int]:
        """The annotation's mask as run lengths, and its label."""
        try:
            encoded = self._index.annToRLE(annotation)
            size, value = tuple(encoded["size"]), self._label_of[annotation["category_id"]]
        except Exception as error:  # pycocotools raises bare Exception and any error of its parsing
            reason = f"{type(error).__name__}: {error}"
        else:
            if size == shape:
                return encoded, value
            reason = f"mask of size {size}, image of size {shape}"
        raise UserError(
            f"{self._path}: annotation {annotation.get('id')} cannot be read ({reason}); fetch the file again"
        )


class PanopticAnnotations:
    """panoptic_*.json and its segments, one PNG per image whose colour is the segment's id (r + 256 g + 65536 b).

    Crowd segments of a labelled category are 255, and so are pixels of no segment; stuff is background.
    Raises: UserError when the file is missing, damaged, or lacks a category of `labels`.
    """

    def __init__(self, path: Path, labels: Mapping[str, int]) -> None:
        content = read_json(path, ("images", "annotations", "categories"))
        self._path, self._folder = path, path.with_suffix("")
        self._remedy = f"unpack {self._folder.name}.zip next to {path.name}"
        self._label_of = labels_by_id(path, content["categories"], labels)
        self._annotations = {annotation["image_id"]: annotation for annotation in content["annotations"]}
        self.images: Sequence[Mapping[str, Any]] = sorted(
            (image for image in content["images"] if image["id"] in self._annotations), key=lambda image: image["id"]
        )

    def check_files(self, images: Sequence[Mapping[str, Any]]) -> None:
        """Raises: UserError for a missing PNG."""
        names = [self._annotations[image["id"]]["file_name"] for image in images]
        check_files(self._folder, names, what="segment maps", remedy=self._remedy)

    def label_maps(self, image: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Label and object map, uint8 (H, W); objects are numbered in the file's order.

        Raises: UserError for a PNG that is damaged, of another size, or has segments the file does not know.
        """
        annotation = self._annotations[image["id"]]
        path = self._folder / annotation["file_name"]
        try:
            colours = np.array(Image.open(path).convert("RGB"), dtype=np.uint32)  # (H, W, 3)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error}); {self._remedy}") from error
        if colours.shape[:2] != (image["height"], image["width"]):
            raise UserError(f"{path}: size {colours.shape[:2]} differs from that in {self._path.name}")
        segments = colours @ np.array([1, 256, 65536], dtype=np.uint32)  # (H, W)
        label = np.full(segments.shape, IGNORE, dtype=np.uint8)
        objects = label.copy()
        unknown = segments != 0
        number = 0
        for info in annotation["segments_info"]:
            mask = segments == info["id"]
            unknown &= ~mask
            value = self._label_of.get(info["category_id"], 0)
            if not value:
                label[mask] = objects[mask] = 0
            elif not info.get("iscrowd"):
                number += 1
                label[mask], objects[mask] = value, object_number(self._path, image, number)
        if unknown.any():
            raise UserError(f"{path}: segment {segments[unknown][0]} is not in {self._path.name}; fetch both again")
        return label, objects


_READERS: dict[str, type[InstanceAnnotations] | type[PanopticAnnotations]] = {
    "instances": InstanceAnnotations,
    "panoptic": PanopticAnnotations,
}
