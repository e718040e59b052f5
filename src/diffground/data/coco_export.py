"""Annotation files in COCO's format that are not COCO's: the exports of labelling tools.

Any name, any ids, own categories, image files anywhere below one folder. What cannot be used is skipped, counted and
named in the log.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as run_lengths

from diffground.data.coco import CocoSummary, InstanceAnnotations, write_annotated
from diffground.data.coco_files import choose, read_json
from diffground.data.images import stored_and_upright_size
from diffground.errors import UserError, in_one_line
from diffground.vocabulary import Vocabulary

_LOGGER = logging.getLogger(__name__)


def export_labels(vocabulary: Vocabulary) -> dict[str, int]:
    """Every name of a category -> its label: its own ('tvmonitor'), its words in prompts ('tv monitor') and the one
    that the detector has ('tv')."""
    names: dict[str, int] = {}
    for i, category in enumerate(vocabulary.categories):
        for name in (category, *vocabulary.words[category], vocabulary.detector_names[category]):
            if name:
                names.setdefault(name, i + 1)
    return names


def convert_export(
    reader: ExportAnnotations, root: Path, *, image_list: str, num_images: int | None = None, seed: int = 0
) -> CocoSummary:
    """Write the images of an export, with label and object maps, as list `image_list` of devkit `root`.

    `num_images` and `seed`: a random subset, as in convert_coco; None: all.
    Raises: UserError when there are fewer images, and when none has a pixel of a labelled category.
    """
    chosen = choose(reader.images, num_images, seed)
    return write_annotated(reader, chosen, reader.folder, root, image_list, description=f"convert {reader.name}")


class ExportAnnotations(InstanceAnnotations):
    """An annotation file of any name. Masks as in InstanceAnnotations; an object whose category is none of `labels` is
    background, and covers what it lies on.

    Skipped are: images whose file is missing or has another size than their record says, image records with a number or
    file name that another one has, and annotations without image, category or area (empty and two-point polygons) or
    whose mask cannot be read.

    Raises: UserError when the file is missing or damaged, has no usable image, or none of the categories.
    """

    def __init__(self, path: Path, labels: Mapping[str, int], folder: Path) -> None:
        """`labels`: name of a category -> 1..254; upper case, hyphens and underscores do not matter. `folder`: that of
        the image files."""
        self.folder, self.name = folder, path.name
        self._skipped: dict[str, list[str]] = defaultdict(list)
        super().__init__(path, labels)
        for reason, named in self._skipped.items():
            _LOGGER.warning("%s: %d skipped, %s; the first is %s", path, len(named), reason, named[0])

    def _read(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            raise UserError(f"{path}: no such file; set data.annotations to a path in data.root or from here")
        content = read_json(path, ("images", "annotations", "categories"))
        for key in ("images", "annotations", "categories"):
            if not isinstance(content[key], list) or not all(isinstance(entry, dict) for entry in content[key]):
                raise UserError(f"{path}: is no COCO annotation file, '{key}' is no list of objects; export it again")
        images = self._usable_images(content["images"])
        if not images:
            problems = (
                "; ".join(f"{len(named)}: {reason}" for reason, named in self._skipped.items()) or "it names none"
            )
            raise UserError(
                f"{path}: no image can be used ({problems}); data.root must be the folder that its file names "
                f"begin in, got {self.folder}"
            )
        sizes = {image["id"]: (image["height"], image["width"]) for image in images}
        known = {category.get("id") for category in content["categories"]}
        annotations = []
        for number, annotation in enumerate(content["annotations"], start=1):
            kept = self._usable(annotation, number, sizes, known)
            if kept is not None:
                annotations.append(kept)
        return {"images": images, "annotations": annotations, "categories": content["categories"]}

    def _labels_by_id(self, categories: Sequence[Mapping[str, Any]], labels: Mapping[str, int]) -> dict[int, int]:
        by_name = {_plain(name): label for name, label in labels.items()}
        found = {category["id"]: by_name.get(_plain(str(category.get("name"))), 0) for category in categories}
        foreign = [str(category.get("name")) for category in categories if not found[category["id"]]]
        if len(foreign) == len(categories):
            raise UserError(
                f"{self._path}: none of its {len(foreign)} categories is one of the vocabulary: {_listed(foreign)}; "
                f"rename them there, known are {_listed(list(labels))}"
            )
        if foreign:
            _LOGGER.warning(
                "%s: %d of %d categories are not in the vocabulary, their objects are background: %s",
                self._path, len(foreign), len(categories), _listed(foreign),
            )  # fmt: skip
        return found

    def _usable_images(self, images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        by_id: dict[Any, list[str]] = defaultdict(list)
        for image in images:
            by_id[image.get("id")].append(str(image.get("file_name")))
        kept: dict[Any, dict[str, Any]] = {}
        files: set[str] = set()
        for image in images:
            id_, name = image.get("id"), str(image.get("file_name", "")).replace("\\", "/")
            if not isinstance(id_, int | str) or not name:
                self._skip("image records without id or file_name", name or str(id_))
            elif len(set(by_id[id_])) > 1:
                self._skip("images of different files with one id", f"{name} (id {id_})")
            elif id_ in kept or name in files:
                self._skip("image records that repeat one", f"{name} (id {id_})")
            elif Path(name).is_absolute() or ".." in Path(name).parts:
                self._skip("images whose file_name leaves the folder", name)
            elif not (self.folder / name).is_file():
                self._skip("images whose file is missing", str(self.folder / name))
            else:
                size = self._size(image, name)
                if size is not None:
                    kept[id_] = {"id": id_, "file_name": name, "height": size[0], "width": size[1]}
                    files.add(name)
        # ids may be numbers or text, which have no order among them
        return sorted(kept.values(), key=lambda image: (isinstance(image["id"], str), image["id"]))

    def _size(self, image: Mapping[str, Any], name: str) -> tuple[int, int] | None:
        """(height, width) of the masks; None for an image that is skipped."""
        try:
            stored, upright = stored_and_upright_size(self.folder / name)
        except UserError as error:
            self._skip("images that cannot be read", str(error))
            return None
        size = (image.get("height"), image.get("width"))
        if None in size:
            return stored
        if size not in (stored, upright):
            self._skip("images of another size than the file says", f"{name}: {stored}, in the file {size}")
            return None
        return stored if size == stored else upright

    def _usable(
        self, annotation: Mapping[str, Any], number: int, sizes: Mapping[Any, tuple[int, int]], known: set[Any]
    ) -> dict[str, Any] | None:
        """The annotation without parts that have no area; None for one that is skipped."""
        named = f"annotation {annotation.get('id', f'number {number}')}"
        image_id, segmentation = annotation.get("image_id"), annotation.get("segmentation")
        if not isinstance(image_id, int | str) or image_id not in sizes:
            self._skip("annotations of images that are not there", f"{named} of image {image_id}")
            return None
        if annotation.get("category_id") not in known:
            self._skip("annotations of categories that are not there", named)
            return None
        if isinstance(segmentation, list):
            segmentation = [part for part in segmentation if isinstance(part, list) and len(part) >= 6]
        if not segmentation:
            self._skip("annotations without a mask (empty, or polygons of fewer than three points)", named)
            return None
        height, width = sizes[image_id]
        try:
            encoded = _encoded(segmentation, height, width)
        except Exception as error:  # pycocotools raises bare Exception and any error of its parsing
            reason = in_one_line(error, limit=100) or type(error).__name__
            self._skip("annotations whose mask cannot be read", f"{named} ({reason})")
            return None
        if not run_lengths.area(encoded):
            self._skip("annotations without area", named)
            return None
        return {
            "id": number,  # the file's own may be missing or repeated
            "image_id": image_id,
            "category_id": annotation["category_id"],
            "iscrowd": annotation.get("iscrowd") or 0,
            "segmentation": encoded,
        }

    def _skip(self, reason: str, named: str) -> None:
        # of a kind, the first is shown
        self._skipped[reason].append(named)


def _encoded(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Run lengths of polygons, or of run lengths that are compressed or not. Raises: ValueError for another size."""
    if isinstance(segmentation, list):
        parts = [[float(value) for value in part[: len(part) // 2 * 2]] for part in segmentation]
        if not all(abs(value) <= 10 * max(height, width) for part in parts for value in part):  # false for NaN too
            raise ValueError("a polygon far outside the image")
        return dict(run_lengths.merge(run_lengths.frPyObjects(parts, height, width)))
    size, counts = tuple(segmentation["size"]), segmentation["counts"]
    if size != (height, width):
        raise ValueError(f"mask of size {size}, image of size {(height, width)}")
    if isinstance(counts, list):
        if sum(counts) != height * width or min(counts, default=0) < 0:
            raise ValueError(f"run lengths of {sum(counts)} pixels, image of {height * width}")
        return dict(run_lengths.frPyObjects(segmentation, height, width))
    encoded = {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
    if run_lengths.decode(encoded).shape != (height, width):
        raise ValueError("run lengths of another size")
    return encoded


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _listed(names: Sequence[str], *, limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
