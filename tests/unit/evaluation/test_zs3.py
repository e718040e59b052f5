"""Zero-shot segmentation scores, worked by hand on 1 x 4 and 2 x 2 images."""

from __future__ import annotations

from statistics import harmonic_mean

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from diffground.evaluation.zs3 import ZeroShotScores

CATEGORIES = ("bird", "cat", "dog")


def _scores(labels: list[int], num_labels: int = 4) -> np.ndarray:
    """Scores of a 1 x N image whose likeliest label, background included, is `labels`."""
    return np.eye(num_labels, dtype=np.float32)[labels].T[:, None, :]


def _label(*values: int) -> np.ndarray:
    return np.array([values], dtype=np.uint8)


def test_harmonic_mean_of_seen_and_unseen() -> None:
    scores = ZeroShotScores(categories=CATEGORIES, seen=["bird", "cat"], unseen=["dog"])
    # bird: 2 of 2 right; cat: 1 right, 1 called dog; dog: 1 right, none missed
    scores.update(label=_label(1, 1, 2, 2, 3), scores=_scores([1, 1, 2, 3, 3]))
    table = scores.table()
    assert table.per_category == {"bird": 100.0, "cat": 50.0, "dog": 50.0}  # dog: 1 right, union 2
    assert table.seen == 75.0 and table.unseen == 50.0
    assert table.harmonic == pytest.approx(60.0)  # 2 * 75 * 50 / 125
    assert table.background is None


def test_background_pixels_are_not_evaluated_and_not_predicted() -> None:
    scores = ZeroShotScores(categories=CATEGORIES, seen=["bird"], unseen=["cat", "dog"])
    prediction = np.zeros((4, 1, 4), dtype=np.float32)
    prediction[0] = 0.9  # the background is likeliest everywhere …
    prediction[1, 0, :3] = 0.5  # … then bird
    prediction[3, 0, 3] = 0.5  # … or dog
    scores.update(label=_label(0, 1, 1, 3), scores=prediction)
    table = scores.table()
    # the bird called in the background counts for nothing; both birds and the dog are right
    assert table.per_category == {"bird": 100.0, "dog": 100.0}
    with_background = scores.table_with_background()
    assert with_background.per_category == {"bird": 0.0, "dog": 0.0}
    assert with_background.background == pytest.approx(25.0)  # 1 of a union of 4
    assert with_background.harmonic == 0.0


def test_with_background_a_false_alarm_costs() -> None:
    scores = ZeroShotScores(categories=CATEGORIES, seen=["bird"], unseen=["dog"])
    scores.update(label=_label(0, 0, 1, 3), scores=_scores([1, 0, 1, 3]))
    assert scores.table().per_category == {"bird": 100.0, "dog": 100.0}
    assert scores.table_with_background().per_category == {"bird": 50.0, "dog": 100.0}
    assert scores.table_with_background().background == 50.0


def test_ignored_pixels_count_for_nothing() -> None:
    scores = ZeroShotScores(categories=CATEGORIES, seen=["bird"], unseen=["dog"])
    scores.update(label=_label(1, 255, 3, 255), scores=_scores([1, 3, 3, 1]))
    assert scores.table().per_category == {"bird": 100.0, "dog": 100.0}


def test_an_absent_category_is_listed_and_left_out_of_the_mean() -> None:
    scores = ZeroShotScores(categories=CATEGORIES, seen=["bird", "cat"], unseen=["dog"])
    scores.update(label=_label(1, 1, 3, 3), scores=_scores([1, 1, 3, 3]))
    table = scores.table()
    assert table.absent == ("cat",) and table.seen == 100.0


def test_without_an_unseen_pixel_there_is_no_harmonic_mean() -> None:
    scores = ZeroShotScores(categories=CATEGORIES, seen=["bird"], unseen=["dog"])
    scores.update(label=_label(1, 1), scores=_scores([1, 1]))
    assert scores.table().unseen is None and scores.table().harmonic is None


def test_categories_that_are_not_used_are_neither_evaluated_nor_predicted() -> None:
    scores = ZeroShotScores(categories=CATEGORIES, seen=["bird"], unseen=["dog"])
    prediction = _scores([2, 3, 2])  # 'cat' is likeliest twice
    prediction[1, 0, 0] = 0.5  # then bird
    scores.update(label=_label(1, 3, 2), scores=prediction)
    assert scores.table().per_category == {"bird": 100.0, "dog": 100.0}


def test_counts_are_summed_over_images_before_dividing() -> None:
    scores = ZeroShotScores(categories=CATEGORIES, seen=["bird"], unseen=["dog"])
    scores.update(label=_label(1, 1, 1, 1), scores=_scores([1, 1, 1, 1]))
    scores.update(label=_label(1, 3), scores=_scores([3, 3]))
    # bird 4 of 5, dog 1 of 2: not the means over images, 50 and 50
    assert scores.table().per_category == {"bird": pytest.approx(80.0), "dog": pytest.approx(50.0)}


def test_scores_are_those_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 3, 255], size=(5, 8, 8)).astype(np.uint8)
    chosen = np.where(rng.random(labels.shape) < 0.6, labels % 255, rng.integers(0, 4, labels.shape))
    scores = ZeroShotScores(categories=CATEGORIES, seen=["bird", "cat"], unseen=["dog"])
    for label, choice in zip(labels, chosen, strict=True):
        scores.update(label=label, scores=np.moveaxis(np.eye(4, dtype=np.float32)[choice], -1, 0))
    iou = (
        multiclass_jaccard_index(
            torch.from_numpy(chosen), torch.from_numpy(labels).long(), num_classes=4, ignore_index=255, average=None
        ).double()
        * 100
    )
    table = scores.table_with_background()
    assert table.background == pytest.approx(iou[0].item(), abs=1e-3)
    assert table.seen == pytest.approx(iou[1:3].mean().item(), abs=1e-3)
    assert table.unseen == pytest.approx(iou[3].item(), abs=1e-3)
    assert table.harmonic == pytest.approx(harmonic_mean([iou[1:3].mean().item(), iou[3].item()]), abs=1e-3)
