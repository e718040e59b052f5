"""IoU tables worked by hand and by other implementations; what is absent is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score
from torchmetrics.functional.classification import multiclass_jaccard_index

from diffground.evaluation.confusion import ConfusionMatrix, MaskCounts
from diffground.evaluation.miou import harmonic_mean, iou_of_labels, iou_of_masks, iou_table, mask_iou


def test_iou_worked_by_hand() -> None:
    table = iou_table(intersection={"a": 3, "b": 0}, union={"a": 4, "b": 5}, target={"a": 3, "b": 2})
    assert table.iou == {"a": 0.75, "b": 0.0}
    assert table.mean == 0.375
    assert table.absent == ()


def test_miou_leaves_out_a_class_absent_from_the_ground_truth_even_when_predicted() -> None:
    table = iou_table(intersection={"a": 1, "b": 0}, union={"a": 2, "b": 7}, target={"a": 2, "b": 0})
    assert table.iou == {"a": 0.5}
    assert table.absent == ("b",)
    assert table.mean == 0.5


def test_no_class_present_has_no_mean() -> None:
    assert iou_table(intersection={}, union={}, target={}).mean is None
    empty = iou_of_masks(MaskCounts())
    assert (empty.iou, empty.absent, empty.mean) == ({}, (), None)


def test_label_maps_score_as_torchmetrics_and_scikit_learn_say() -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 4, (5, 8, 8))
    prediction = np.where(rng.random(label.shape) < 0.6, label, rng.integers(0, 4, label.shape))
    confusion = ConfusionMatrix(num_labels=4)
    for one, other in zip(label, prediction, strict=True):
        confusion.update(label=one, prediction=other)
    table = iou_of_labels(confusion, ("background", "a", "b", "c"))
    by_torchmetrics = multiclass_jaccard_index(
        torch.from_numpy(prediction), torch.from_numpy(label), num_classes=4, average=None
    )
    assert list(table.iou.values()) == pytest.approx(by_torchmetrics.tolist(), abs=1e-6)
    by_sklearn = jaccard_score(label.ravel(), prediction.ravel(), average="macro")
    assert table.mean == pytest.approx(by_sklearn)


def test_masks_score_as_scikit_learn_says() -> None:
    rng = np.random.default_rng(2)
    true, predicted = rng.random((2, 3, 6, 6)) < 0.5
    counts = MaskCounts()
    for one, other in zip(true, predicted, strict=True):
        counts.update(category="dog", prediction=other, target=one)
    assert iou_of_masks(counts).iou["dog"] == pytest.approx(jaccard_score(true.ravel(), predicted.ravel()))


def test_subset_keeps_order_scores_and_absences() -> None:
    table = iou_table(
        intersection={"a": 1, "b": 1, "c": 0}, union={"a": 1, "b": 4, "c": 0}, target={"a": 1, "b": 4, "c": 0}
    )
    part = table.subset(("b", "c"))
    assert part.iou == {"b": 0.25}
    assert part.absent == ("c",)


@pytest.mark.parametrize(("a", "b", "expected"), [(1.0, 1.0, 1.0), (0.5, 1.0, 2 / 3), (0.0, 0.8, 0.0), (0.0, 0.0, 0.0)])
def test_harmonic_mean(a: float, b: float, expected: float) -> None:
    assert harmonic_mean(a, b) == pytest.approx(expected)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_mask_iou_is_symmetric_between_0_and_1_and_1_only_for_equal_masks(pixels: list[tuple[bool, bool]]) -> None:
    a, b = (np.array([p[i] for p in pixels]) for i in (0, 1))
    iou = mask_iou(a, b)
    assert iou == mask_iou(b, a)
    assert 0 <= iou <= 1
    assert (iou == 1) == (a.any() and bool((a == b).all()))


def test_two_empty_masks_do_not_overlap() -> None:
    assert mask_iou(np.zeros(3, dtype=bool), np.zeros(3, dtype=bool)) == 0
