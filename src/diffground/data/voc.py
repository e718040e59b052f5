"""Segmentation data in PASCAL VOC devkit layout.

JPEGImages/<id>.jpg
SegmentationClass/<id>.png     palette image: 0 background, 1..K categories, 255 ignored
SegmentationObject/<id>.png    palette image: 0 background, 1..N instances, 255 ignored
ImageSets/Segmentation/<list>.txt

Labels may lie in another folder and be grey images (mode L) of the same numbers, as the augmented training set of
10,582 images has them: SegmentationClassAug, list trainaug.
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

from diffground.data.palette import IGNORE
from diffground.data.palette import VOC_PALETTE as VOC_PALETTE
from diffground.data.shards import encode_label
from diffground.errors import UserError

_IMAGES, _LABELS, _OBJECTS = "JPEGImages", "SegmentationClass", "SegmentationObject"
_JPEG_QUALITY = 95
_EMPTY = "NO_REAL_IMAGES.txt"


@dataclass(frozen=True)
class VocItem:
    """`image` uint8 (H, W, 3), or a JPEG file that is copied unchanged; `label` and `objects` uint8 (H, W), as in
    SegmentationClass and SegmentationObject."""

    id: str
    image: np.ndarray | Path
    label: np.ndarray
    objects: np.ndarray


class VocDataset:
    """The images of one list, with their labels of `label_folder`.

    A devkit that write_empty_voc made has none. Raises: UserError when the folder, the list, or a file that the list
    names is missing, and when a label image holds other labels than 0..num_categories and 255.
    """

    def __init__(self, root: Path, image_list: str, *, num_categories: int = 20, label_folder: str = _LABELS) -> None:
        self.ids = [] if (root / _EMPTY).is_file() else _read_list(root, image_list)
        _check_files(root, image_list, self.ids, folders=(_IMAGES, label_folder))
        self._root, self._num_categories, self._label_folder = root, num_categories, label_folder

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H, W, 3) and label uint8 (H, W): 0 background, 1..K, 255 ignored."""
        image_path = self._path(_IMAGES, i)
        image = np.array(_open(image_path).convert("RGB"))
        label = self.label(i)
        if label.shape != image.shape[:2]:
            raise UserError(f"{self._path(self._label_folder, i)}: size {label.shape} differs from {image_path}")
        return image, label

    def label(self, i: int) -> np.ndarray:
        """Label uint8 (H, W) of image i, without reading the image."""
        label = self._read_index_image(self._label_folder, i)
        foreign = sorted({int(v) for v in np.unique(label)} - {*range(self._num_categories + 1), IGNORE})
        if foreign:
            raise UserError(
                f"{self._path(self._label_folder, i)}: labels must be 0..{self._num_categories} or {IGNORE}, "
                f"got {foreign}; take the palette images of the devkit"
            )
        return label

    def instances(self, i: int) -> list[tuple[int, np.ndarray]]:
        """(category index from 0, mask bool (H, W)) of every object of image i.

        Raises: UserError when SegmentationObject lacks the image.
        """
        label = self.label(i)
        objects = self._read_index_image(_OBJECTS, i)
        if objects.shape != label.shape:
            raise UserError(f"{self._path(_OBJECTS, i)}: size {objects.shape} differs from {label.shape} of the label")
        found = []
        for number in np.unique(objects[(objects != 0) & (objects != IGNORE)]):
            mask = objects == number
            labels = label[mask & (label != 0) & (label != IGNORE)]
            if labels.size:
                found.append((int(np.bincount(labels).argmax()) - 1, mask))
        return found

    def _path(self, folder: str, i: int) -> Path:
        return self._root / folder / f"{self.ids[i]}{_suffix(folder)}"

    def _read_index_image(self, folder: str, i: int) -> np.ndarray:
        image = _open(self._path(folder, i))
        if image.mode not in ("P", "L"):
            raise UserError(f"{self._path(folder, i)}: must be a palette image, got mode {image.mode}")
        return np.array(image, dtype=np.uint8)


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
        _write_image(root / _IMAGES / f"{item.id}.jpg", item.image)
        (root / _LABELS / f"{item.id}.png").write_bytes(encode_label(item.label))
        (root / _OBJECTS / f"{item.id}.png").write_bytes(encode_label(item.objects))
        ids.append(item.id)
    _list_path(root, image_list).write_text("".join(f"{id_}\n" for id_ in ids))
    return len(ids)


def write_empty_voc(root: Path) -> None:
    """Replace `root` by a devkit without images, of which every list is empty."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / _EMPTY).write_text("data.source is 'none': there are no real images.\n", encoding="utf-8")


def _write_image(path: Path, image: np.ndarray | Path) -> None:
    if isinstance(image, Path):
        shutil.copyfile(image, path)
    else:
        # 4:4:4, since colour at half resolution would blur the outlines of small images
        Image.fromarray(image).save(path, quality=_JPEG_QUALITY, subsampling=0)


def copy_voc(source: Path, root: Path, image_lists: Iterable[str], *, label_folder: str = _LABELS) -> dict[str, int]:
    """Copy the images of `image_lists` of a devkit, with the labels of `label_folder`, which become SegmentationClass.

    Returns their number by list. Everything is checked before the first file is copied. Where lists take their labels
    from different folders, call it once for each. Raises: UserError as VocDataset does.
    """
    ids = {name: _read_list(source, name) for name in image_lists}
    for name, members in ids.items():
        _check_files(source, name, members, folders=(_IMAGES, label_folder))
    for folder, target in ((_IMAGES, _IMAGES), (label_folder, _LABELS), (_OBJECTS, _OBJECTS)):
        (root / target).mkdir(parents=True, exist_ok=True)
        for id_ in sorted({id_ for members in ids.values() for id_ in members}):
            path = source / folder / f"{id_}{_suffix(folder)}"
            if path.is_file():  # SegmentationObject is optional
                shutil.copyfile(path, root / target / path.name)
    for name, members in ids.items():
        _list_path(root, name).parent.mkdir(parents=True, exist_ok=True)
        _list_path(root, name).write_text("".join(f"{id_}\n" for id_ in members))
    return {name: len(members) for name, members in ids.items()}


def _suffix(folder: str) -> str:
    return ".jpg" if folder == _IMAGES else ".png"


def _list_path(root: Path, image_list: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{image_list}.txt"


def _read_list(root: Path, image_list: str) -> list[str]:
    if not root.is_dir():
        raise UserError(f"{root}: no such data folder; set data.root, or run `dvc repro prepare_data`")
    path = _list_path(root, image_list)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise UserError(f"{path}: no such image list; lists there: {known}")
    # one image per line: its id, or, as some lists of the augmented set have it, "/JPEGImages/<id>.jpg /Segm…/<id>.png"
    first_columns = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    ids = [Path(column).stem if "/" in column else column for column in first_columns]
    if not ids:
        raise UserError(f"{path}: names no image; run `dvc repro prepare_data` or take another list")
    return ids


def _check_files(root: Path, image_list: str, ids: list[str], *, folders: Iterable[str]) -> None:
    for folder in folders:
        there = {path.name for path in (root / folder).iterdir()} if (root / folder).is_dir() else set()
        missing = [id_ for id_ in ids if f"{id_}{_suffix(folder)}" not in there]
        if missing:
            raise UserError(
                f"{root / folder / missing[0]}{_suffix(folder)}: missing, and {len(missing) - 1} more of the "
                f"{len(ids)} images of list '{image_list}'; complete the folder"
            )


def _open(path: Path) -> Image.Image:
    """Raises: UserError for a missing or damaged file."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; complete the folder") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); replace the file") from None
    return image
