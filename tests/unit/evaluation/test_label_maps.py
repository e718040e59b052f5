"""All scores of label maps at once, against other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score
from torchmetrics.functional.classification import multiclass_jaccard_index

from diffground.evaluation.boundary import boundary_iou
from diffground.evaluation.label_maps import LabelMapScores

CATEGORIES = ("bird", "cat", "dog")


def test_scores_are_those_of_torchmetrics_and_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 3, 255], size=(4, 16, 16)).astype(np.uint8)  # no cat
    predictions = np.where(rng.random(labels.shape) < 0.7, labels % 255, rng.integers(0, 4, labels.shape))
    scores = LabelMapScores(categories=CATEGORIES)
    for label, prediction in zip(labels, predictions, strict=True):
        scores.update(label=label, prediction=prediction)
    metrics = scores.metrics()
    expected = multiclass_jaccard_index(
        torch.from_numpy(predictions), torch.from_numpy(labels).long(), num_classes=4, ignore_index=255, average=None
    ).numpy() * 100  # fmt: skip
    assert metrics["per_category"] == pytest.approx(
        {"background": expected[0], "bird": expected[1], "dog": expected[3]}, abs=1e-3
    )
    assert metrics["miou"] == pytest.approx(expected[[1, 3]].mean(), abs=1e-3)
    assert metrics["miou_with_background"] == pytest.approx(expected[[0, 1, 3]].mean(), abs=1e-3)
    scored = labels != 255
    nmi = [normalized_mutual_info_score(a[s], b[s]) for a, b, s in zip(labels, predictions, scored, strict=True)]
    assert metrics["nmi"] == pytest.approx(100 * np.mean(nmi))
    assert metrics["nmi_dataset"] == pytest.approx(
        100 * normalized_mutual_info_score(labels[scored], predictions[scored])
    )
    assert (metrics["num_images"], metrics["num_undivided"]) == (4, 0)


def test_boundary_scores_of_one_image_are_those_of_its_masks() -> None:
    label, prediction = np.zeros((2, 20, 20), dtype=np.uint8)
    label[3:12, 3:12], label[12:18, 3:18] = 1, 3
    prediction[4:12, 3:13], prediction[12:18, 3:18] = 1, 3
    scores = LabelMapScores(categories=CATEGORIES)
    scores.update(label=label, prediction=prediction)
    expected = 100 * np.mean([boundary_iou(prediction == value, label == value) for value in (1, 3)])
    assert 0 < expected < 100
    assert scores.metrics()["boundary_miou"] == pytest.approx(expected)


def test_nothing_added_scores_nothing() -> None:
    metrics = LabelMapScores(categories=CATEGORIES).metrics()
    assert (metrics["miou"], metrics["boundary_miou"], metrics["nmi"], metrics["num_images"]) == (None, None, None, 0)
