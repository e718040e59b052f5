"""Normalised mutual information as scikit-learn computes it, and by hand."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from diffground.evaluation.confusion import ConfusionMatrix
from diffground.evaluation.nmi import NmiScores, division_by, joint_counts, nmi_of_counts


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=60))
def test_nmi_is_that_of_scikit_learn(pixels: list[tuple[int, int]]) -> None:
    a, b = np.array(pixels).T
    expected = normalized_mutual_info_score(a, b, average_method="arithmetic")
    assert nmi_of_counts(joint_counts(a, b)) == pytest.approx(expected, abs=1e-9)


def test_nmi_worked_by_hand() -> None:
    # a = 0 0 1 1, b = 0 0 0 1: H(a) = ln 2, H(b) = ln 4 - 3/4 ln 3, H(a, b) = 3/2 ln 2
    entropy_b = log(4) - 0.75 * log(3)
    expected = 2 * (log(2) + entropy_b - 1.5 * log(2)) / (log(2) + entropy_b)
    assert nmi_of_counts(np.array([[2, 0], [1, 1]])) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[3, 0], [0, 5]], 1),  # the same division
        ([[0, 3], [5, 0]], 1),  # under other names
        ([[2, 2], [3, 3]], 0),  # independent
        ([[4]], 1),  # one part each
        ([[4, 4]], 0),  # one part says nothing about two
        ([[4, 0], [0, 0]], 1),  # labels that do not occur are no parts
    ],
)
def test_limits(counts: list[list[int]], expected: float) -> None:
    assert nmi_of_counts(np.array(counts)) == pytest.approx(expected, abs=1e-12)


def test_streamed_counts_score_a_dataset_as_scikit_learn_scores_all_its_pixels() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (5, 6, 6))
    predictions = np.where(rng.random(labels.shape) < 0.5, labels, 0)
    confusion = ConfusionMatrix(num_labels=4)
    for label, prediction in zip(labels, predictions, strict=True):
        confusion.update(label=label, prediction=prediction)
    expected = normalized_mutual_info_score(labels.ravel(), predictions.ravel())
    assert nmi_of_counts(confusion.counts) == pytest.approx(expected)


def test_images_are_scored_one_by_one() -> None:
    rng = np.random.default_rng(1)
    scores, expected = NmiScores(), []
    for _ in range(4):
        label, prediction = rng.integers(0, 3, (2, 6, 6))
        # a mask per label but the first, so that the masks divide the image as the labels do
        scores.update(targets=[label == 1, label == 2], predictions=[prediction == 2, prediction == 1])
        expected.append(normalized_mutual_info_score(label.ravel(), prediction.ravel()))
    assert scores.per_image == pytest.approx(expected)
    assert scores.mean == pytest.approx(np.mean(expected))


def test_an_image_of_one_true_part_is_counted_and_not_scored() -> None:
    scores = NmiScores()
    assert scores.mean is None
    everything, half = np.ones((2, 2), dtype=bool), np.eye(2, dtype=bool)
    scores.update(targets=[everything], predictions=[half])
    scores.update(targets=[~everything], predictions=[half])
    assert (scores.per_image, scores.num_undivided, scores.mean) == ([], 2, None)


def test_masks_that_overlap_divide_by_the_set_of_masks_a_pixel_is_in() -> None:
    a, b = np.array([[True, True, False, False]]), np.array([[False, True, True, False]])
    division = division_by([a, b])
    assert division.shape == (1, 4)
    assert len(np.unique(division)) == 4
    assert len(np.unique(division_by([a, a]))) == 2


def test_many_masks_divide_as_their_columns_do() -> None:
    masks = np.random.default_rng(2).random((80, 5, 5)) < 0.1  # 2^80 possible sets
    division = division_by(list(masks)).ravel()
    columns = [tuple(column) for column in masks.reshape(80, -1).T]
    assert (division[:, None] == division).tolist() == [[c == d for d in columns] for c in columns]


def test_labellings_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        joint_counts(np.zeros(3), np.zeros(4))
