"""Scores of label maps against true ones: mIoU, boundary mIoU and normalised mutual information."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffground.evaluation.boundary import BoundaryCounts
from diffground.evaluation.confusion import ConfusionMatrix
from diffground.evaluation.miou import IouTable, iou_of_labels
from diffground.evaluation.nmi import NmiScores, nmi_of_counts

_BACKGROUND = "background"


class LabelMapScores:
    """Counts over a dataset; the background is a label like any other, with a row of its own."""

    def __init__(self, *, categories: Sequence[str]) -> None:
        """`categories` in label order: category i has label i + 1, 0 is the background."""
        self._names = (_BACKGROUND, *categories)
        self._confusion = ConfusionMatrix(num_labels=len(self._names))
        self._boundary = BoundaryCounts()
        self._nmi = NmiScores()

    def update(self, *, label: np.ndarray, prediction: np.ndarray) -> None:
        """Add one image.

        Args:
            label: uint8 (H, W), 0..K or 255, not scored.
            prediction: uint8 (H, W), 0..K wherever the label is scored.
        Raises: ValueError when shapes differ or a scored value is out of range.
        """
        self._confusion.update(label=label, prediction=prediction)
        self._boundary.update_labels(label=label, prediction=prediction, names=self._names)
        self._nmi.update(label=label, prediction=prediction)

    def metrics(self) -> dict[str, Any]:
        """In percent, None where nothing can be scored; means of IoU are over the categories that occur.

        `nmi` is the mean over images, `nmi_dataset` that of all pixels together.
        """
        iou = iou_of_labels(self._confusion, self._names)
        categories = self._names[1:]
        return {
            "miou": _percent(iou.subset(categories).mean),
            "miou_with_background": _percent(iou.mean),
            "boundary_miou": _percent(self._boundary.table().subset(categories).mean),
            "nmi": _percent(self._nmi.mean),
            "nmi_dataset": _percent(nmi_of_counts(self._confusion.counts)),
            "num_images": len(self._nmi.per_image) + self._nmi.num_undivided,
            "num_undivided": self._nmi.num_undivided,
            "per_category": _by_category(iou),
        }


def _by_category(table: IouTable) -> dict[str, float]:
    return {name: 100 * value for name, value in table.iou.items()}


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
