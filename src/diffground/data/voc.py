"""Segmentation data in PASCAL VOC devkit layout.

JPEGImages/<id>.jpg
SegmentationClass/<id>.png     palette image: 0 background, 1..K categories, 255 ignored
SegmentationObject/<id>.png    palette image: 0 background, 1..N instances, 255 ignored
ImageSets/Segmentation/<list>.txt
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffground.errors import UserError

from .palette import IGNORE
from .palette import VOC_PALETTE as VOC_PALETTE
from .shards import encode_label

_FOLDERS = {"JPEGImages": ".jpg", "SegmentationClass": ".png", "SegmentationObject": ".png"}
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class VocItem:
    """`image` uint8 (H, W, 3); `label` and `objects` uint8 (H, W), as in SegmentationClass and SegmentationObject."""

    id: str
    image: np.ndarray
    label: np.ndarray
    objects: np.ndarray


class VocDataset:
    """The images of one list, with their labels.

    Raises: UserError when the folder, the list, or a file that the list names is missing, and when a label image holds
    other labels than 0..num_categories and 255.
    """

    def __init__(self, root: Path, image_list: str, *, num_categories: int = 20) -> None:
        self.ids = _read_list(root, image_list)
        _check_files(root, image_list, self.ids, folders=("JPEGImages", "SegmentationClass"))
        self._root, self._num_categories = root, num_categories

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H, W, 3) and label uint8 (H, W): 0 background, 1..K, 255 ignored."""
        image_path = self._path("JPEGImages", i)
        image = np.array(_open(image_path).convert("RGB"))
        label = self._read_index_image("SegmentationClass", i)
        if label.shape != image.shape[:2]:
            raise UserError(f"{self._path('SegmentationClass', i)}: size {label.shape} differs from {image_path}")
        foreign = sorted({int(v) for v in np.unique(label)} - {*range(self._num_categories + 1), IGNORE})
        if foreign:
            raise UserError(
                f"{self._path('SegmentationClass', i)}: labels must be 0..{self._num_categories} or {IGNORE}, "
                f"got {foreign}; take the palette images of the devkit"
            )
        return image, label

    def instances(self, i: int) -> list[tuple[int, np.ndarray]]:
        """(category index from 0, mask bool (H, W)) of every object of image i.

        Raises: UserError when SegmentationObject lacks the image.
        """
        _, label = self[i]
        objects = self._read_index_image("SegmentationObject", i)
        found = []
        for number in np.unique(objects[(objects != 0) & (objects != IGNORE)]):
            mask = objects == number
            labels = label[mask & (label != 0) & (label != IGNORE)]
            if labels.size:
                found.append((int(np.bincount(labels).argmax()) - 1, mask))
        return found

    def _path(self, folder: str, i: int) -> Path:
        return self._root / folder / f"{self.ids[i]}{_FOLDERS[folder]}"

    def _read_index_image(self, folder: str, i: int) -> np.ndarray:
        image = _open(self._path(folder, i))
        if image.mode not in ("P", "L"):
            raise UserError(f"{self._path(folder, i)}: must be a palette image, got mode {image.mode}")
        return np.array(image, dtype=np.uint8)


def write_voc(root: Path, image_list: str, items: Iterable[VocItem]) -> int:
    """Write `items` and, last, the list of them. Returns how many there are."""
    for folder in (*_FOLDERS, "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    ids = []
    for item in items:
        # 4:4:4, since colour at half resolution would blur the outlines of small images
        image = Image.fromarray(item.image)
        image.save(root / f"JPEGImages/{item.id}.jpg", quality=_JPEG_QUALITY, subsampling=0)
        (root / f"SegmentationClass/{item.id}.png").write_bytes(encode_label(item.label))
        (root / f"SegmentationObject/{item.id}.png").write_bytes(encode_label(item.objects))
        ids.append(item.id)
    _list_path(root, image_list).write_text("".join(f"{id_}\n" for id_ in ids))
    return len(ids)


def copy_voc(source: Path, root: Path, image_lists: Iterable[str]) -> dict[str, int]:
    """Copy the images of `image_lists` of a devkit. Returns their number by list.

    Everything is checked before the first file is copied. Raises: UserError as VocDataset does.
    """
    ids = {name: _read_list(source, name) for name in image_lists}
    for name, members in ids.items():
        _check_files(source, name, members, folders=("JPEGImages", "SegmentationClass"))
    for folder, suffix in _FOLDERS.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for id_ in sorted({id_ for members in ids.values() for id_ in members}):
            path = source / folder / f"{id_}{suffix}"
            if path.is_file():  # SegmentationObject is optional
                shutil.copyfile(path, root / folder / path.name)
    for name, members in ids.items():
        _list_path(root, name).parent.mkdir(parents=True, exist_ok=True)
        _list_path(root, name).write_text("".join(f"{id_}\n" for id_ in members))
    return {name: len(members) for name, members in ids.items()}


def _list_path(root: Path, image_list: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{image_list}.txt"


def _read_list(root: Path, image_list: str) -> list[str]:
    if not root.is_dir():
        raise UserError(f"{root}: no such data folder; set data.root, or run `dvc repro prepare_data`")
    path = _list_path(root, image_list)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise UserError(f"{path}: no such image list; lists there: {known}")
    ids = path.read_text().split()
    if not ids:
        raise UserError(f"{path}: names no image; run `dvc repro prepare_data` or take another list")
    return ids


def _check_files(root: Path, image_list: str, ids: list[str], *, folders: Iterable[str]) -> None:
    for folder in folders:
        there = {path.name for path in (root / folder).iterdir()} if (root / folder).is_dir() else set()
        missing = [id_ for id_ in ids if f"{id_}{_FOLDERS[folder]}" not in there]
        if missing:
            raise UserError(
                f"{root / folder / missing[0]}{_FOLDERS[folder]}: missing, and {len(missing) - 1} more of the "
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
