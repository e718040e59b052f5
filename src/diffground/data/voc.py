"""Segmentation data in PASCAL VOC devkit layout.

JPEGImages/<id>.jpg            or another suffix of IMAGE_SUFFIXES
SegmentationClass/<id>.png     palette image: 0 background, 1..K categories, 255 ignored
SegmentationObject/<id>.png    palette image: 0 background, 1..N instances, 255 ignored
ImageSets/Segmentation/<list>.txt

Labels may lie in another folder and be grey images (mode L) of the same numbers, as the augmented training set of
10,582 images has them: SegmentationClassAug, list trainaug. They may also have another suffix of MASK_SUFFIXES.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from diffground.data.image_lists import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    Files,
    read_list,
    require_files,
    sample_ids,
)
from diffground.data.images import open_image, rgb_pixels
from diffground.data.masks import read_index_image, read_mask
from diffground.data.palette import IGNORE
from diffground.data.palette import VOC_PALETTE as VOC_PALETTE
from diffground.data.shards import encode_label
from diffground.errors import UserError

_IMAGES, _LABELS, _OBJECTS = "JPEGImages", "SegmentationClass", "SegmentationObject"
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class VocItem:
    """`image` uint8 (H, W, 3), or a file that is copied unchanged; `label` and `objects` uint8 (H, W), as in
    SegmentationClass and SegmentationObject."""

    id: str
    image: np.ndarray | Path
    label: np.ndarray
    objects: np.ndarray


class VocDataset:
    """The images of one list, with their labels of `label_folder`. `binary_label`: see read_mask.

    A label belongs to the pixels as they are stored in the image file. Where only the upright image (EXIF orientation)
    has the label's size, it belongs to that.

    Raises: UserError when the folder, the list, or a file that the list names is missing, when the list names no image
    unless it `may_be_empty`, and when a label image is none that read_mask takes.
    """

    def __init__(
        self,
        root: Path,
        image_list: str,
        *,
        num_categories: int = 20,
        label_folder: str = _LABELS,
        binary_label: int | None = IGNORE,
        may_be_empty: bool = False,
    ) -> None:
        folders = _Folders(root, label_folder)
        self.ids = folders.read(image_list, may_be_empty=may_be_empty)
        self._images = [folders.images.path(id_) for id_ in self.ids]
        self._labels = [folders.labels.path(id_) for id_ in self.ids]
        self._objects = [
            folders.objects.path(id_) if id_ in folders.objects else root / _OBJECTS / f"{id_}.png" for id_ in self.ids
        ]
        self._num_categories, self._binary_label = num_categories, binary_label

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H, W, 3) and label uint8 (H, W): 0 background, 1..K, 255 ignored."""
        path, label = self._images[i], self.label(i)
        stored = open_image(path)
        image = rgb_pixels(stored, name=path, upright=(stored.height, stored.width) != label.shape)
        if label.shape != image.shape[:2]:
            raise UserError(f"{self._labels[i]}: size {label.shape} differs from {path}, which has {image.shape[:2]}")
        return image, label

    def label(self, i: int) -> np.ndarray:
        """Label uint8 (H, W) of image i, without reading the image."""
        return read_mask(self._labels[i], num_categories=self._num_categories, binary_label=self._binary_label)

    def files(self, i: int) -> tuple[Path, Path]:
        """Image and label image i."""
        return self._images[i], self._labels[i]

    def instances(self, i: int) -> list[tuple[int, np.ndarray]]:
        """(category index from 0, mask bool (H, W)) of every object of image i.

        Raises: UserError when SegmentationObject lacks the image.
        """
        label = self.label(i)
        path = self._objects[i]
        if not path.is_file():
            raise UserError(f"{path}: no such file; complete the folder")
        objects = read_index_image(path)
        if objects.shape != label.shape:
            raise UserError(f"{path}: size {objects.shape} differs from {label.shape} of the label")
        found = []
        for number in np.unique(objects[(objects != 0) & (objects != IGNORE)]):
            mask = objects == number
            labels = label[mask & (label != 0) & (label != IGNORE)]
            if labels.size:
                found.append((int(np.bincount(labels).argmax()) - 1, mask))
        return found


def coappearing_counts(dataset: VocDataset) -> dict[tuple[int, int], int]:
    """Number of images of every pair of labels that share one; pairs as in coappearing_labels, in that order."""
    return count_pairs(dataset.label(i) for i in range(len(dataset)))


def coappearing_labels(dataset: VocDataset) -> list[tuple[int, int]]:
    """Pairs of labels a < b that share an image, sorted; 0 and 255 do not count (paper, supplementary B.1)."""
    return list(coappearing_counts(dataset))


def count_pairs(labels: Iterable[np.ndarray]) -> dict[tuple[int, int], int]:
    """coappearing_counts of label maps, uint8 (H, W) each."""
    counts = Counter[tuple[int, int]]()
    for label in labels:
        present = [int(v) for v in np.unique(label) if v not in (0, IGNORE)]
        counts.update(combinations(present, 2))
    return dict(sorted(counts.items()))


def write_voc(root: Path, image_list: str, items: Iterable[VocItem]) -> int:
    """Write `items` and, last, the list of them; an image that is a file is copied byte for byte.

    Returns how many there are.
    """
    for folder in (_IMAGES, _LABELS, _OBJECTS, "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    ids = []
    for item in items:
        suffix = item.image.suffix.lower() if isinstance(item.image, Path) else ".jpg"
        _remove_others(root / _IMAGES, item.id, suffix)
        _write_image(root / _IMAGES / f"{item.id}{suffix}", item.image)
        (root / _LABELS / f"{item.id}.png").write_bytes(encode_label(item.label))
        (root / _OBJECTS / f"{item.id}.png").write_bytes(encode_label(item.objects))
        ids.append(item.id)
    _write_list(root, image_list, ids)
    return len(ids)


def write_empty_voc(root: Path, image_lists: Iterable[str]) -> None:
    """Replace `root` by a devkit without images, of which these lists are empty."""
    shutil.rmtree(root, ignore_errors=True)
    for folder in (_IMAGES, _LABELS, _OBJECTS):
        (root / folder).mkdir(parents=True)
    for image_list in image_lists:
        _write_list(root, image_list, [])


def _write_image(path: Path, image: np.ndarray | Path) -> None:
    if isinstance(image, Path):
        shutil.copyfile(image, path)
    else:
        # 4:4:4, since colour at half resolution would blur the outlines of small images
        Image.fromarray(image).save(path, quality=_JPEG_QUALITY, subsampling=0)


def copy_voc(
    source: Path,
    root: Path,
    image_lists: Iterable[str],
    *,
    label_folder: str = _LABELS,
    num_categories: int = 20,
    binary_label: int | None = IGNORE,
) -> dict[str, int]:
    """Copy the images of `image_lists` of a devkit, with the labels of `label_folder`, which become SegmentationClass.

    Files are copied byte for byte; labels in other formats than PNG are written as PNG, and so are those of 0 and 255
    only where `binary_label` is a category's label, with it in place of 255. Ids that no shard can have are changed
    (sample_ids).

    Returns their number by list. All files are there before the first one is copied. Where lists take their labels from
    different folders, call it once for each. Raises: UserError as VocDataset does.
    """
    folders = _Folders(source, label_folder)
    ids = {name: folders.read(name) for name in image_lists}
    names = sample_ids(sorted({id_ for members in ids.values() for id_ in members}))
    copied = [(id_, folders.images.path(id_), folders.labels.path(id_)) for id_ in names]
    for folder in (_IMAGES, _LABELS, _OBJECTS):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for id_, image, label in copied:
        suffix = image.suffix.lower()
        _remove_others(root / _IMAGES, names[id_], suffix)
        shutil.copyfile(image, root / _IMAGES / f"{names[id_]}{suffix}")
        target = root / _LABELS / f"{names[id_]}.png"
        if binary_label in (None, IGNORE):
            _copy_index_image(label, target)
        else:
            values = read_mask(label, num_categories=num_categories, binary_label=binary_label)
            target.write_bytes(encode_label(values))
        if id_ in folders.objects:  # SegmentationObject is optional
            _copy_index_image(folders.objects.path(id_), root / _OBJECTS / f"{names[id_]}.png")
    for name, members in ids.items():
        _write_list(root, name, [names[id_] for id_ in members])
    return {name: len(members) for name, members in ids.items()}


def _copy_index_image(source: Path, target: Path) -> None:
    if source.suffix.lower() == ".png":
        shutil.copyfile(source, target)
    else:
        target.write_bytes(encode_label(read_index_image(source)))


def _remove_others(folder: Path, id_: str, suffix: str) -> None:
    """An image of this id with another suffix, which an earlier run left."""
    for other in set(IMAGE_SUFFIXES) - {suffix}:
        (folder / f"{id_}{other}").unlink(missing_ok=True)


def list_path(root: Path, image_list: str) -> Path:
    """The file of a list."""
    return root / "ImageSets" / "Segmentation" / f"{image_list}.txt"


def _write_list(root: Path, image_list: str, ids: Iterable[str]) -> None:
    path = list_path(root, image_list)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{id_}\n" for id_ in ids), encoding="utf-8")


class _Folders:
    """Images and labels of a devkit. Raises: UserError where there is no devkit."""

    def __init__(self, root: Path, label_folder: str) -> None:
        if not root.is_dir():
            raise UserError(f"{root}: no such data folder; set data.root, or run `dvc repro prepare_data`")
        self.root = root
        self.images = Files(root / _IMAGES, suffixes=IMAGE_SUFFIXES)
        self.labels = Files(root / label_folder, suffixes=MASK_SUFFIXES)
        self.objects = Files(root / _OBJECTS, suffixes=MASK_SUFFIXES)

    def read(self, image_list: str, *, may_be_empty: bool = False) -> list[str]:
        """The ids of a list, whose files are there. Raises: UserError as VocDataset does."""
        path = list_path(self.root, image_list)
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
            raise UserError(f"{path}: no such image list; lists there: {known}")
        ids = read_list(path, self.images, may_be_empty=may_be_empty)
        require_files(self.images, ids, image_list=image_list, suffix=".jpg")
        require_files(self.labels, ids, image_list=image_list, suffix=".png")
        return ids
