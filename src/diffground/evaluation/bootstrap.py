"""Intervals of a category-wise mIoU over the images it was measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from diffground.evaluation.confusion import MaskCounts

_NUM_RESAMPLES = 1000
_PERCENTILES = (2.5, 97.5)


def miou_interval(images: Sequence[MaskCounts]) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap interval of the mean IoU over categories, 0..1; None without images.

    images: the counts of each. Images are drawn with replacement, 1,000 times, always the same draws for the same
    number of images; the counts of a draw are summed by category as for the mIoU itself, and a category that a draw
    lacks is left out of its mean.
    """
    categories = sorted({category for counts in images for category in counts.target})
    if not categories:
        return None

    def table(counts: Sequence[Mapping[str, int]]) -> np.ndarray:
        return np.array([[of_image.get(category, 0) for category in categories] for of_image in counts], dtype=float)

    times = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), _NUM_RESAMPLES)
    intersection, union, target = (
        times @ table([getattr(counts, name) for counts in images]) for name in ("intersection", "union", "target")
    )  # (resamples, categories)
    ious = np.divide(intersection, union, out=np.full_like(union, np.nan), where=target > 0)
    low, high = np.percentile(np.nanmean(ious, axis=1), _PERCENTILES)
    return float(low), float(high)
