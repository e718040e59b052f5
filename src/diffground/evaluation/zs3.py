"""Protocol II (paper section 4.3): zero-shot semantic segmentation, scored on seen and unseen categories apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffground.data.palette import IGNORE
from diffground.evaluation.confusion import ConfusionMatrix
from diffground.evaluation.miou import IouTable, harmonic_mean, iou_of_labels, percent
from diffground.runtime.progress import Progress
from diffground.segmentation.segmenter import Segmenter
from diffground.segmentation.sources import SegmentationSource
from diffground.vocabulary import Vocabulary

_BACKGROUND = "background"
_BATCH = 16  # images predicted at once; changes the speed, not the scores


@dataclass(frozen=True)
class ZeroShotTable:
    """mIoU in percent; None where no category of that kind has a pixel in the ground truth."""

    seen: float | None
    unseen: float | None
    harmonic: float | None
    background: float | None
    """IoU of the background; None where it is not evaluated."""
    per_category: dict[str, float]
    absent: tuple[str, ...]
    """Categories without a pixel in the ground truth; they are in no mean."""


class ZeroShotScores:
    """Counts over a dataset, in two ways.

    As the benchmark (SPNet, ZS3Net) does: background pixels are not evaluated, and a pixel is given to the likeliest
    category. With background, as PASCAL VOC does: it is one more label.
    Categories that are neither seen nor unseen are not used: their pixels are not evaluated, nor are they predicted.
    """

    def __init__(self, *, categories: Sequence[str], seen: Sequence[str], unseen: Sequence[str]) -> None:
        """`categories` in label order: category i has label i + 1, 0 is the background."""
        self._seen, self._unseen = tuple(seen), tuple(unseen)
        self._used = [i for i, category in enumerate(categories) if category in seen or category in unseen]
        self._names = tuple(categories[i] for i in self._used)
        # label in the data -> row of the confusion matrices
        self._with_background = np.full(IGNORE + 1, IGNORE, dtype=np.uint8)
        self._with_background[0] = 0
        self._without_background = np.full(IGNORE + 1, IGNORE, dtype=np.uint8)
        for row, i in enumerate(self._used):
            self._with_background[i + 1] = row + 1
            self._without_background[i + 1] = row
        self._counts = ConfusionMatrix(num_labels=len(self._used))
        self._counts_with_background = ConfusionMatrix(num_labels=len(self._used) + 1)

    def update(self, *, label: np.ndarray, scores: np.ndarray) -> None:
        """Add one image.

        Args:
            label: uint8 (H, W), 0 background, 1..K, 255 ignored.
            scores: float (K + 1, H, W), larger is likelier; 0 is the background.
        """
        of_categories = scores[1:][self._used]  # (used, H, W)
        self._counts.update(label=self._without_background[label], prediction=of_categories.argmax(axis=0))
        of_all = np.concatenate([scores[:1], of_categories])
        self._counts_with_background.update(label=self._with_background[label], prediction=of_all.argmax(axis=0))

    def table(self) -> ZeroShotTable:
        """Scores without the background."""
        return self._table(iou_of_labels(self._counts, self._names))

    def table_with_background(self) -> ZeroShotTable:
        return self._table(iou_of_labels(self._counts_with_background, (_BACKGROUND, *self._names)))

    def _table(self, table: IouTable) -> ZeroShotTable:
        return zero_shot_table(table, seen=self._seen, unseen=self._unseen)


def zero_shot_table(table: IouTable, *, seen: Sequence[str], unseen: Sequence[str]) -> ZeroShotTable:
    """IoU by category, and of 'background' where it is scored -> means over seen and unseen categories."""
    seen_miou, unseen_miou = (percent(table.subset(tuple(names)).mean) for names in (seen, unseen))
    return ZeroShotTable(
        seen=seen_miou,
        unseen=unseen_miou,
        harmonic=None if seen_miou is None or unseen_miou is None else harmonic_mean(seen_miou, unseen_miou),
        background=percent(table.iou.get(_BACKGROUND)),
        per_category={name: 100 * value for name, value in table.iou.items() if name != _BACKGROUND},
        absent=tuple(name for name in table.absent if name != _BACKGROUND),
    )


def score_segmenter(
    segmenter: Segmenter, data: SegmentationSource, *, vocabulary: Vocabulary, description: str
) -> ZeroShotScores:
    """Predict every image of `data` and count."""
    scores = ZeroShotScores(categories=vocabulary.categories, seen=vocabulary.seen, unseen=vocabulary.unseen)
    with Progress(len(data), description=description) as progress:
        for start in range(0, len(data), _BATCH):
            items = [data[i] for i in range(start, min(start + _BATCH, len(data)))]
            predictions = segmenter.predict([image for image, _ in items])
            for (_, label), prediction in zip(items, predictions, strict=True):
                scores.update(label=label, scores=prediction)
            progress.advance(len(items))
    return scores
