"""Counts by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from diffground.evaluation.confusion import ConfusionMatrix, MaskCounts


def test_counts_worked_by_hand() -> None:
    confusion = ConfusionMatrix(num_labels=3)
    confusion.update(label=np.array([[0, 1], [1, 255]]), prediction=np.array([[0, 1], [2, 2]]))
    assert confusion.counts.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert confusion.intersection.tolist() == [1, 1, 0]
    assert confusion.union.tolist() == [1, 2, 1]
    assert confusion.target.tolist() == [1, 2, 0]


def test_streamed_counts_equal_scikit_learn_on_everything_at_once() -> None:
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 5, (7, 6, 4)), rng.integers(0, 5, (7, 6, 4))
    confusion = ConfusionMatrix(num_labels=5)
    for label, prediction in zip(labels, predictions, strict=True):
        confusion.update(label=label.astype(np.uint8), prediction=prediction.astype(np.uint8))
    expected = confusion_matrix(labels.ravel(), predictions.ravel(), labels=range(5))
    assert np.array_equal(confusion.counts, expected)


def test_nothing_added_counts_nothing() -> None:
    assert not ConfusionMatrix(num_labels=2).union.any()


def test_ignored_pixels_may_be_predicted_as_anything() -> None:
    confusion = ConfusionMatrix(num_labels=2)
    confusion.update(label=np.array([255, 255]), prediction=np.array([9, 255]))
    assert not confusion.counts.any()


@pytest.mark.parametrize(
    ("label", "prediction", "message"),
    [
        ([0, 1], [0], "one shape"),
        ([0, 2], [0, 1], r"label must be in 0\.\.1, got 0\.\.2"),
        ([0, 1], [0, 2], r"prediction must be in 0\.\.1, got 0\.\.2"),
    ],
)
def test_values_that_cannot_be_counted_are_refused(label: list[int], prediction: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(num_labels=2).update(label=np.array(label), prediction=np.array(prediction))


def test_masks_are_counted_by_category_over_images() -> None:
    counts = MaskCounts()
    on, off = np.array([[True, True]]), np.array([[True, False]])
    counts.update(category="dog", prediction=on, target=off)
    counts.update(category="dog", prediction=~on, target=off)
    counts.update(category="cat", prediction=on, target=~on)
    assert counts.intersection == {"dog": 1, "cat": 0}
    assert counts.union == {"dog": 3, "cat": 2}
    assert counts.target == {"dog": 2, "cat": 0}


def test_masks_that_are_not_boolean_are_refused() -> None:
    with pytest.raises(ValueError, match="masks of 'dog' must be boolean"):
        MaskCounts().update(category="dog", prediction=np.zeros((2, 2)), target=np.zeros((2, 2), dtype=bool))
