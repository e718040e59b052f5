"""Mask AP50: COCO's average precision of instance masks at IoU 0.5, mean over categories."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from diffground.detection.detector import Instances


class MaskAp50:
    """Streams images into pycocotools' COCOeval: IoU 0.5, all areas, at most 100 detections per image and category."""

    def __init__(self) -> None:
        self._images: list[dict[str, int]] = []
        self._found: list[dict[str, Any]] = []
        self._true: list[dict[str, Any]] = []

    def update(self, found: Instances, truth: list[tuple[str, np.ndarray]]) -> None:
        """Add one image. `truth`: (label, mask bool (H, W)) of every true instance."""
        height, width = found.masks.shape[1:]
        image = {"id": len(self._images), "height": height, "width": width}
        self._images.append(image)
        for label, score, mask in zip(found.labels, found.scores.tolist(), found.masks, strict=True):
            self._found.append({**_annotation(image, label, mask), "score": score})
        self._true += [_annotation(image, label, mask) for label, mask in truth]

    def per_category(self) -> Mapping[str, float]:
        """AP50, 0..1, of every label that has a true instance."""
        labels = sorted({annotation["category_id"] for annotation in self._true})
        if not labels:
            return {}
        with redirect_stdout(StringIO()):  # pycocotools prints its progress
            evaluation = COCOeval(self._index(self._true, labels), self._index(self._found, labels), "segm")
            evaluation.params.iouThrs = np.array([0.5])
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.params.maxDets = [100]
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval["precision"][0, :, :, 0, 0]  # (101 recalls, labels)
        return dict(zip(labels, precision.mean(axis=0).tolist(), strict=True))

    def mean(self) -> float:
        """Mean over the labels with a true instance. Raises: ValueError when there is none."""
        values = list(self.per_category().values())
        if not values:
            raise ValueError("AP50 needs at least one true instance")
        return float(np.mean(values))

    def _index(self, annotations: list[dict[str, Any]], labels: list[str]) -> COCO:
        coco = COCO()
        coco.dataset = {
            "images": self._images,
            # ids from 1: COCOeval takes a match with id 0 for none
            "annotations": [{**annotation, "id": i} for i, annotation in enumerate(annotations, start=1)],
            "categories": [{"id": label} for label in labels],
        }
        coco.createIndex()
        return coco


def _annotation(image: Mapping[str, int], label: str, mask: np.ndarray) -> dict[str, Any]:
    """COCO's record of a mask, bool (H, W). A label is its own category id."""
    return {
        "image_id": image["id"],
        "category_id": label,
        "segmentation": run_lengths.encode(np.asfortranarray(mask, dtype=np.uint8)),
        "area": int(mask.sum()),
        "iscrowd": 0,
    }
