"""The images on which a segmenter has the lowest IoU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffground.data.palette import IGNORE
from diffground.report.gallery import Picture, Row, label_picture
from diffground.segmentation.segmenter import Segmenter
from diffground.segmentation.sources import SegmentationSource

_BATCH = 16  # images predicted at once


@dataclass(frozen=True)
class Failure:
    """One image. image: uint8 (H, W, 3). truth, answer: uint8 (H, W) labels. iou: 0..1."""

    image: np.ndarray
    truth: np.ndarray
    answer: np.ndarray
    iou: float


def image_iou(truth: np.ndarray, answer: np.ndarray) -> float | None:
    """Mean IoU, 0..1, over the categories of one image that `truth` shows; None where it shows none.

    truth, answer: uint8 (H, W), 0 background, 255 in `truth` not judged.
    """
    judged = truth != IGNORE
    labels = [label for label in np.unique(truth[judged]).tolist() if label != 0]
    scores = []
    for label in labels:
        true, found = (truth == label) & judged, (answer == label) & judged
        scores.append(float((true & found).sum() / (true | found).sum()))
    return sum(scores) / len(scores) if scores else None


def worst_images(source: SegmentationSource, segmenter: Segmenter, *, num: int) -> list[Failure]:
    """The `num` images of `source` with the lowest IoU, the worst first; of equal ones the earlier one first."""
    failures: list[Failure] = []
    for start in range(0, len(source), _BATCH):
        items = [source[i] for i in range(start, min(start + _BATCH, len(source)))]
        predictions = segmenter.predict([image for image, _ in items])
        for (image, truth), scores in zip(items, predictions, strict=True):
            answer = scores.argmax(axis=0).astype(np.uint8)  # (H, W)
            iou = image_iou(truth, answer)
            if iou is not None:
                failures.append(Failure(image, truth, answer, iou))
        failures = sorted(failures, key=lambda failure: failure.iou)[:num]
    return failures


def failure_rows(source: SegmentationSource, segmenter: Segmenter, *, num_columns: int) -> list[Row]:
    """Three rows: the images with the lowest IoU, their true masks, and the predicted masks."""
    failures = worst_images(source, segmenter, num=num_columns)
    return [
        Row("real images with the lowest IoU", [Picture(f.image, f"IoU {100 * f.iou:.1f} %") for f in failures]),
        Row("true masks", [label_picture(f.image, f.truth, segmenter.categories) for f in failures]),
        Row("predicted masks", [label_picture(f.image, f.answer, segmenter.categories) for f in failures]),
    ]
