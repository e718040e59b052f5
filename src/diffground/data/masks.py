"""Label images as users have them -> label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffground.data.images import open_image
from diffground.data.palette import IGNORE
from diffground.errors import UserError
from diffground.vocabulary import closest

IGNORED = "ignored"
"""Setting data.binary_label: 255 stays ignored in masks of 0 and 255 too."""


def binary_label_of(setting: str, categories: Sequence[str]) -> int | None:
    """What 255 means in masks that hold only 0 and 255, by setting data.binary_label: None ('', it must be set where
    there are such masks), 255 ('ignored'), or the label of a category.

    Raises: UserError for a name that is no category.
    """
    if setting in ("", IGNORED):
        return IGNORE if setting else None
    if setting not in categories:
        raise UserError(
            f"data.binary_label must be '{IGNORED}' or one of the {len(categories)} categories, got '{setting}'; "
            f"closest: {closest(setting, categories)}"
        )
    return categories.index(setting) + 1


def is_binary(label: np.ndarray) -> bool:
    """Whether a label map, uint8 (H, W), holds 255 and nothing else but 0, as painted masks of one object do."""
    return bool(((label == 0) | (label == IGNORE)).all()) and bool((label == IGNORE).any())


def read_mask(path: Path, *, num_categories: int, binary_label: int | None = IGNORE) -> np.ndarray:
    """uint8 (H, W) of a palette, grey or black-and-white image: 0 background, 1..num_categories, 255 ignored.

    In a file that holds only 0 and 255, 255 becomes `binary_label`; in any other file it stays 255. This is decided for
    each file by itself.

    Raises: UserError for a file that cannot be read, other modes, other values, and, where `binary_label` is None, for
    a file of 0 and 255 only.
    """
    label = read_index_image(path)
    foreign = sorted({int(v) for v in np.unique(label)} - {*range(num_categories + 1), IGNORE})
    if foreign:
        shown = f"{str(foreign[:8])[:-1]}, … {len(foreign) - 8} more]" if len(foreign) > 9 else str(foreign)
        raise UserError(
            f"{path}: labels must be 0..{num_categories} or {IGNORE}, got {shown}; "
            f"take the palette images of the devkit"
        )
    if binary_label == IGNORE or not is_binary(label):
        return label
    if binary_label is None:
        raise UserError(
            f"{path}: holds only 0 and {IGNORE}, and {IGNORE} means ignored; where it means an object, set "
            f"data.binary_label=NAME, its category; where it does mean ignored, data.binary_label={IGNORED}"
        )
    return np.where(label == IGNORE, np.uint8(binary_label), label)


def read_index_image(path: Path) -> np.ndarray:
    """uint8 (H, W), the numbers in a palette, grey or black-and-white image (0 and 255). Raises: UserError."""
    image = open_image(path)
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("P", "L"):
        raise UserError(
            f"{path}: must be a palette image, got mode {image.mode}; save it as a palette or grey image of 8 bits"
        )
    return np.array(image, dtype=np.uint8)
