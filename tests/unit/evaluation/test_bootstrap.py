"""Intervals of the mIoU, compared with what is known of them."""

from __future__ import annotations

import numpy as np
import pytest

from diffground.evaluation.bootstrap import miou_interval
from diffground.evaluation.confusion import MaskCounts
from diffground.evaluation.miou import iou_of_masks


def image(**hits: float) -> MaskCounts:
    """The counts of an image: of each category 100 pixels, of which a share is found and nothing else."""
    counts = MaskCounts()
    for category, share in hits.items():
        target = np.ones(100, dtype=bool)
        counts.update(category=category, prediction=np.arange(100) < 100 * share, target=target)
    return counts


def test_equal_images_leave_no_doubt() -> None:
    assert miou_interval([image(dog=0.75)] * 5) == (0.75, 0.75)


def test_no_image_no_interval() -> None:
    assert miou_interval([]) is None


def test_half_as_wide_with_four_times_the_images() -> None:
    few = [image(dog=share) for share in np.linspace(0.5, 1, 25)]
    (low, high), (narrow_low, narrow_high) = miou_interval(few), miou_interval(few * 4)
    mean = iou_of_masks(sum(few, start=MaskCounts())).mean
    assert low < narrow_low < mean < narrow_high < high
    assert (high - low) / (narrow_high - narrow_low) == pytest.approx(2, rel=0.1)
    # the mean of n shares has a standard error of sd / sqrt(n), and 95 % lie within 1.96 of it
    assert high - low == pytest.approx(2 * 1.96 * np.std(np.linspace(0.5, 1, 25)) / 5, rel=0.1)


def test_a_category_that_a_draw_lacks_is_left_out() -> None:
    # in a third of the draws there is no cat; counted as 0 it would pull the lower end to 0.4
    low, high = miou_interval([image(dog=0.8), image(dog=0.8), image(cat=1.0)])
    assert (low, high) == (0.8, 1.0)
