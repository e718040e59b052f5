"""Mask AP50: COCO's average precision of instance masks at IoU 0.5, mean over categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from diffground.detection.detector import Instances

_IOU_THRESHOLD = 0.5
_RECALLS = np.linspace(0, 1, 101)


@dataclass
class _Category:
    num_true: int = 0
    scores: list[float] = field(default_factory=list)
    hits: list[bool] = field(default_factory=list)


class MaskAp50:
    """Streams images; a prediction is right when its IoU with a true instance of its label, not yet taken, is >= 0.5.

    As pycocotools' COCOeval at IoU 0.5, all areas, 100 detections an image and category: matching per image in order of
    score, precision interpolated at 101 recalls.
    """

    def __init__(self) -> None:
        self._categories: dict[str, _Category] = {}

    def update(self, found: Instances, truth: list[tuple[str, np.ndarray]]) -> None:
        """Add one image. `truth`: (label, mask bool (H, W)) of every true instance."""
        labels = {label for label, _ in truth} | set(found.labels)
        for label in labels:
            category = self._categories.setdefault(label, _Category())
            true_masks = [mask for name, mask in truth if name == label]
            category.num_true += len(true_masks)
            mine = np.array([i for i, name in enumerate(found.labels) if name == label], dtype=np.int64)
            mine = mine[np.argsort(-found.scores[mine], kind="stable")][:100]
            free = list(range(len(true_masks)))
            for i in mine:
                ious = [_iou(found.masks[i], true_masks[k]) for k in free]
                best = int(np.argmax(ious)) if ious else -1
                hit = best >= 0 and ious[best] >= _IOU_THRESHOLD
                if hit:
                    free.pop(best)
                category.scores.append(float(found.scores[i]))
                category.hits.append(hit)

    def per_category(self) -> Mapping[str, float]:
        """AP50, 0..1, of every label that has a true instance."""
        return {
            label: _interpolated_precision(category)
            for label, category in sorted(self._categories.items())
            if category.num_true
        }

    def mean(self) -> float:
        """Mean over the labels with a true instance. Raises: ValueError when there is none."""
        values = list(self.per_category().values())
        if not values:
            raise ValueError("AP50 needs at least one true instance")
        return float(np.mean(values))


def _interpolated_precision(category: _Category) -> float:
    order = np.argsort(-np.array(category.scores), kind="stable")
    hits = np.array(category.hits, dtype=np.float64)[order]
    if not len(hits):
        return 0.0
    num_hits = np.cumsum(hits)
    recall = num_hits / category.num_true
    precision = num_hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # best precision at this recall or more
    at = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[at].mean())


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0
