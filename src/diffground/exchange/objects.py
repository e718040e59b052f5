"""The objects of a label map: the connected regions of each category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.mask import encode, toBbox
from scipy import ndimage

from diffground.data.palette import IGNORE

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Object:
    """Pixels of one category that touch each other, at a side or a corner."""

    label: int
    """Category i has i + 1."""
    x: int
    """Left column and top row of `mask` in the image."""
    y: int
    mask: np.ndarray
    """bool (h, w), only the part of the image that holds the object."""

    @property
    def area(self) -> int:
        return int(self.mask.sum())

    @property
    def box(self) -> list[int]:
        """x, y, width, height in px."""
        return [self.x, self.y, self.mask.shape[1], self.mask.shape[0]]

    @property
    def corner(self) -> np.ndarray:
        """int (2,): x and y of the left top corner of `mask`, to be added to points of polygons."""
        return np.array([self.x, self.y])

    def in_image(self, size: tuple[int, int]) -> np.ndarray:
        """The mask as bool (H, W) for an image of `size` (H, W)."""
        whole = np.zeros(size, dtype=bool)
        whole[self.y : self.y + self.mask.shape[0], self.x : self.x + self.mask.shape[1]] = self.mask
        return whole


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """bool (H, W) -> COCO's run lengths as JSON has them: size and counts; pycocotools.mask.decode reads them."""
    encoded = encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def mask_box(mask: np.ndarray) -> list[int]:
    """bool (H, W) -> x, y, width, height in px; zeros without a pixel."""
    return [int(value) for value in toBbox(encode(np.asfortranarray(mask, dtype=np.uint8)))]


def find_objects(label: np.ndarray) -> tuple[Object, ...]:
    """uint8 (H, W), 0 background, 255 ignored -> its objects, by label, then from top to bottom."""
    found = []
    for value in np.unique(label).tolist():
        if value in (0, IGNORE):
            continue
        numbered, _ = ndimage.label(label == value, structure=_EIGHT_NEIGHBOURS)
        for i, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
            found.append(Object(value, columns.start, rows.start, numbered[rows, columns] == i))
    return tuple(found)
