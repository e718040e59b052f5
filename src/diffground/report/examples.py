"""Images chosen by their score: the best, those around the median, and the worst. None is chosen by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diffground.data.palette import IGNORE
from diffground.segmentation.segmenter import Segmenter
from diffground.segmentation.sources import SegmentationSource

Kind = Literal["best", "median", "worst"]
_BATCH = 16  # images predicted at once
_HALF = 0.5
_LEAST_FRAC = 0.01
"""Share of an image's pixels below which a category that is not there is not worth a word."""


@dataclass(frozen=True)
class Example:
    """A segmented image. image: uint8 (H, W, 3). truth, answer: uint8 (H, W) labels. iou: 0..1."""

    image: np.ndarray
    truth: np.ndarray
    answer: np.ndarray
    iou: float


def choose(scores: Sequence[float | None], *, num: int) -> dict[Kind, list[int]]:
    """Positions of `num` of each kind, or as many as there are; none twice, and of equal scores the earlier first.

    None: has no score and is not chosen. The worst are taken first, then the best, then those around the median.
    The best and the worst are in that order, those around the median in rising order.
    """
    rising = sorted((i for i, score in enumerate(scores) if score is not None), key=lambda i: (scores[i], i))
    worst, rest = rising[:num], rising[num:]
    num_best = min(num, len(rest))
    best = sorted(rest[len(rest) - num_best :], key=lambda i: (-(scores[i] or 0.0), i))
    middle = rest[: len(rest) - num_best]
    start = max(0, (len(middle) - num) // 2)
    return {"best": best, "median": middle[start : start + num], "worst": worst}


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


def image_scores(source: SegmentationSource, segmenter: Segmenter) -> list[float | None]:
    """image_iou of each image of `source`, in order; a batch of images is in memory at a time."""
    return [
        image_iou(truth, answer) for _, truth, answer in _predictions(source, segmenter, positions=range(len(source)))
    ]


def read_examples(source: SegmentationSource, segmenter: Segmenter, positions: Sequence[int]) -> list[Example]:
    """The images of `source` at these positions, which all show a category, with the masks of `segmenter`."""
    return [
        Example(image, truth, answer, image_iou(truth, answer) or 0.0)
        for image, truth, answer in _predictions(source, segmenter, positions=positions)
    ]


def explain(truth: np.ndarray, answer: np.ndarray, categories: Sequence[str]) -> str:
    """What is wrong with the answer, in a sentence per category. `categories[i]` is label i + 1.

    truth, answer: uint8 (H, W), 0 background, 255 in `truth` not judged.
    """
    judged = truth != IGNORE
    truth, answer = truth[judged], answer[judged]  # (N,)
    shown = [label for label in np.unique(truth).tolist() if label != 0]
    found = []
    for label in shown:
        name, given = categories[label - 1], answer[truth == label]
        right_frac = float((given == label).mean())
        values, counts = np.unique(given[given != label], return_counts=True)
        if right_frac < _HALF:
            instead = int(values[counts.argmax()])
            what = "as background" if instead == 0 else f"as {categories[instead - 1]}"
            found.append(f"{_percent(counts.max() / len(given))} of the {name} is labelled {what}.")
        elif (truth[answer == label] != label).mean() > _HALF:
            found.append(f"More than half of the mask of the {name} is on something else.")
    for label in sorted(set(np.unique(answer).tolist()) - {0, *shown}):
        if (frac := float((answer == label).mean())) >= _LEAST_FRAC:
            found.append(f"{_percent(frac)} of the image is labelled as {categories[label - 1]}, which is not there.")
    return " ".join(found) or "The right categories are found; the outlines differ."


def _percent(frac: float) -> str:
    return f"{100 * frac:.0f} %"


def _predictions(
    source: SegmentationSource, segmenter: Segmenter, *, positions: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Image, truth and answer."""
    for start in range(0, len(positions), _BATCH):
        items = [source[i] for i in positions[start : start + _BATCH]]
        predictions = segmenter.predict([image for image, _ in items])
        for (image, truth), scores in zip(items, predictions, strict=True):
            yield image, truth, scores.argmax(axis=0).astype(np.uint8)  # (H, W)
