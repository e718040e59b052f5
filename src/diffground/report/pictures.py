"""Contents of the galleries: grounded synthetic images, real images with predictions, and the worst of these.

None is chosen by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from diffground.data.labelled import LabelledSample
from diffground.data.palette import IGNORE
from diffground.data.shards import Sample
from diffground.prompts import GROUPS
from diffground.report.gallery import Picture, Row, label_picture, overlay
from diffground.report.tables import GROUP_TITLES
from diffground.segmentation.segmenter import Segmenter
from diffground.segmentation.sources import SegmentationSource

_BATCH = 16  # images predicted at once


@dataclass(frozen=True)
class Failure:
    """An image with a low IoU. image: uint8 (H, W, 3). truth, answer: uint8 (H, W) labels. iou: 0..1."""

    image: np.ndarray
    truth: np.ndarray
    answer: np.ndarray
    iou: float


def synthetic_rows(samples: Iterable[Sample], *, num_columns: int) -> list[Row]:
    """A row per group of prompts: images of the synthetic set, each followed by its grounded masks.

    Of each group the first image of every set of categories, in the order of the shards, until `num_columns` are full.
    """
    pictures: dict[str, list[Picture]] = {group: [] for group in GROUPS}
    shown: set[frozenset[str]] = set()
    for sample in map(LabelledSample, samples):
        group, categories = sample.group, sample.categories
        if len(pictures[group]) >= num_columns or frozenset(categories) in shown:
            continue
        shown.add(frozenset(categories))
        image = sample.image()
        pictures[group] += [Picture(image, " + ".join(categories)), Picture(overlay(image, sample.label()))]
        if all(len(row) >= num_columns for row in pictures.values()):
            break
    return [Row(f"{GROUP_TITLES[group]}: image, masks", row) for group, row in pictures.items() if row]


def scored_rows(
    source: SegmentationSource, segmenters: Mapping[str, Segmenter], *, num_columns: int, what: str = "real images"
) -> list[Row]:
    """Rows of the first images, `what`, of their true masks and of the masks that each segmenter predicts."""
    items = [source[i] for i in range(min(num_columns, len(source)))]
    images = [image for image, _ in items]
    rows = [
        Row(f"{what}, not used in training", [Picture(image) for image in images]),
        Row("true masks", [Picture(overlay(image, label)) for image, label in items]),
    ]
    for heading, segmenter in segmenters.items():
        answers = [scores.argmax(axis=0).astype(np.uint8) for scores in segmenter.predict(images)]  # (H, W) each
        pairs = zip(images, answers, strict=True)
        rows.append(Row(heading, [label_picture(*pair, segmenter.categories) for pair in pairs]))
    return rows


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


def failure_rows(
    source: SegmentationSource, segmenter: Segmenter, *, num_columns: int, what: str = "real images"
) -> list[Row]:
    """Rows of the images, `what`, with the lowest IoU, of their true masks and of the predicted masks."""
    failures = worst_images(source, segmenter, num=num_columns)
    return [
        Row(f"{what} with the lowest IoU", [Picture(f.image, f"IoU {100 * f.iou:.1f} %") for f in failures]),
        Row("true masks", [label_picture(f.image, f.truth, segmenter.categories) for f in failures]),
        Row("predicted masks", [label_picture(f.image, f.answer, segmenter.categories) for f in failures]),
    ]
