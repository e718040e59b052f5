"""Intersection over union, from counts; a category without a true pixel is left out of the mean and listed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffground.evaluation.confusion import ConfusionMatrix, MaskCounts


@dataclass(frozen=True)
class IouTable:
    """IoU by category, 0..1, and what could not be scored."""

    iou: dict[str, float]
    absent: tuple[str, ...]
    """Categories without a pixel in the ground truth."""

    @property
    def mean(self) -> float | None:
        """Mean over the categories that occur; None when none does."""
        return sum(self.iou.values()) / len(self.iou) if self.iou else None

    def subset(self, categories: tuple[str, ...]) -> IouTable:
        """The same scores of only `categories`."""
        return IouTable(
            iou={c: self.iou[c] for c in categories if c in self.iou},
            absent=tuple(c for c in categories if c in self.absent),
        )


def iou_table(*, intersection: Mapping[str, int], union: Mapping[str, int], target: Mapping[str, int]) -> IouTable:
    """Divide counts; each argument maps a category to pixels."""
    present = [category for category in target if target[category] > 0]
    return IouTable(
        iou={c: int(intersection[c]) / int(union[c]) for c in present},
        absent=tuple(c for c in target if target[c] == 0),
    )


def iou_of_masks(counts: MaskCounts) -> IouTable:
    """Scores of binary masks."""
    return iou_table(intersection=counts.intersection, union=counts.union, target=counts.target)


def iou_of_labels(confusion: ConfusionMatrix, names: tuple[str, ...]) -> IouTable:
    """Scores of label maps; `names[i]` is the name of label i."""

    def by_name(values: np.ndarray) -> dict[str, int]:
        return dict(zip(names, values.tolist(), strict=True))

    return iou_table(
        intersection=by_name(confusion.intersection), union=by_name(confusion.union), target=by_name(confusion.target)
    )


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b), 0 when both are 0 (zero-shot segmentation: of seen and unseen mIoU)."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two boolean masks of one shape; 0 when both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def percent(fraction: float | None) -> float | None:
    """0..1 -> 0..100; None, which is no score, stays None."""
    return None if fraction is None else 100 * fraction
