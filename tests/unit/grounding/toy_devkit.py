"""Five real images with label maps on disk, of 32 px, whose labels lie in rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffground.data.voc import VocItem, write_voc
from diffground.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("pascal", seen=["bus", "cat", "pottedplant"], unseen=["dog"])
BUS, CAT, DOG, PLANT, SHEEP = (VOCABULARY.index(c) + 1 for c in ("bus", "cat", "dog", "pottedplant", "sheep"))


def labels_of(*areas: tuple[int, slice]) -> np.ndarray:
    """32 x 32 background with rows of labels."""
    label = np.zeros((32, 32), dtype=np.uint8)
    for value, rows in areas:
        label[rows] = value
    return label


LABELS = {
    "a": labels_of((CAT, slice(0, 8)), (255, slice(8, 10))),
    "b": labels_of((BUS, slice(0, 6)), (CAT, slice(10, 20))),
    "c": labels_of((DOG, slice(0, 20))),  # unseen alone
    "d": labels_of((BUS, slice(0, 4)), (CAT, slice(4, 9)), (PLANT, slice(9, 20))),  # three
    "e": labels_of((PLANT, slice(0, 9)), (DOG, slice(9, 12)), (SHEEP, slice(12, 14))),  # sheep is not used
}


def write_devkit(root: Path) -> None:
    """The images of LABELS as list 'train' of `root`."""
    rng = np.random.default_rng(0)
    write_voc(
        root,
        "train",
        (
            VocItem(id=id_, image=rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), label=label, objects=label)
            for id_, label in LABELS.items()
        ),
    )
