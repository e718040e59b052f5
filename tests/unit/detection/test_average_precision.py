"""Mask AP50: by hand, and against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from diffground.detection.average_precision import MaskAp50
from diffground.detection.detector import Instances


def _square(x: int, y: int, side: int = 4) -> np.ndarray:
    mask = np.zeros((16, 16), dtype=bool)
    mask[y : y + side, x : x + side] = True
    return mask


def _instances(entries: list[tuple[str, float, np.ndarray]]) -> Instances:
    return Instances(
        labels=[label for label, _, _ in entries],
        scores=np.array([score for _, score, _ in entries], dtype=np.float32),
        masks=np.stack([mask for _, _, mask in entries]) if entries else np.zeros((0, 16, 16), dtype=bool),
    )


def _ap50(images: list[tuple[list[tuple[str, float, np.ndarray]], list[tuple[str, np.ndarray]]]]) -> MaskAp50:
    metric = MaskAp50()
    for found, truth in images:
        metric.update(_instances(found), truth)
    return metric


def test_a_perfect_detector_scores_one() -> None:
    assert _ap50([([("dog", 0.9, _square(2, 2))], [("dog", _square(2, 2))])]).mean() == pytest.approx(1.0)


def test_an_iou_of_exactly_one_half_is_right_and_less_is_wrong() -> None:
    two_by_four, shifted = np.zeros((16, 16), dtype=bool), np.zeros((16, 16), dtype=bool)
    two_by_four[:4, :2] = True  # 8 of the 16 pixels of the true mask: IoU 8 / 16
    shifted[:4, 1:3] = True
    shifted[0, 1] = False  # 7 of 16
    truth = [("dog", _square(0, 0))]
    assert _ap50([([("dog", 0.9, two_by_four)], truth)]).mean() == pytest.approx(1.0)
    assert _ap50([([("dog", 0.9, shifted)], truth)]).mean() == 0.0


def test_a_second_detection_of_one_object_is_wrong() -> None:
    found = [("dog", 0.9, _square(2, 2)), ("dog", 0.95, _square(2, 2, side=3))]  # the better score takes the object
    metric = _ap50([(found, [("dog", _square(2, 2)), ("dog", _square(9, 9))])])
    # precision 1 up to recall 0.5 (51 of 101 recalls), nothing beyond
    assert metric.mean() == pytest.approx(51 / 101)


def test_a_label_without_a_true_instance_is_left_out_of_the_mean() -> None:
    metric = _ap50([([("cat", 0.9, _square(2, 2)), ("dog", 0.8, _square(2, 2))], [("dog", _square(2, 2))])])
    assert dict(metric.per_category()) == {"dog": pytest.approx(1.0)}


def test_an_object_never_found_scores_zero() -> None:
    assert _ap50([([], [("dog", _square(2, 2))])]).mean() == 0.0


def test_without_any_true_instance_there_is_no_score() -> None:
    with pytest.raises(ValueError, match="at least one true instance"):
        MaskAp50().mean()


def _ap50_by_definition(images: list, label: str) -> float:
    """Greedy matching in order of score; the mean over 101 recalls of the best precision at that recall or more."""
    num_true, hits = 0, []
    for found, truth in images:
        free = [mask for name, mask in truth if name == label]
        num_true += len(free)
        for _, score, mask in sorted((f for f in found if f[0] == label), key=lambda f: -f[1]):
            ious = [(mask & true).sum() / (mask | true).sum() for true in free]
            hit = bool(ious) and max(ious) >= 0.5
            if hit:
                free.pop(int(np.argmax(ious)))
            hits.append((score, hit))
    num_hits = np.cumsum([hit for _, hit in sorted(hits, reverse=True)])
    points = [(right / num_true, right / i) for i, right in enumerate(num_hits.tolist(), start=1)]
    return np.mean([max((p for r, p in points if r >= recall), default=0) for recall in np.linspace(0, 1, 101)])


def test_random_detections_score_as_by_the_definition() -> None:
    rng = np.random.default_rng(0)
    labels = ["dog", "cat", "car"]
    images = []
    for _ in range(30):
        truth = [
            (str(rng.choice(labels)), _square(*rng.integers(0, 10, 2), side=int(rng.integers(3, 7)))) for _ in range(3)
        ]
        found = [
            (
                label if rng.random() < 0.8 else str(rng.choice(labels)),
                float(rng.random()),
                np.roll(m, rng.integers(-2, 3, 2), (0, 1)),
            )
            for label, m in truth
            for _ in range(int(rng.integers(0, 3)))
        ]
        images.append((found, truth))
    expected = {label: _ap50_by_definition(images, label) for label in labels}
    assert 0.05 < np.mean(list(expected.values())) < 0.95
    assert dict(_ap50(images).per_category()) == pytest.approx(expected, abs=1e-9)


def test_the_101st_detection_of_a_label_in_an_image_does_not_count() -> None:
    wrong = [("dog", 0.9, _square(9, 9))] * 99
    right = ("dog", 0.5, _square(2, 2))
    truth = [("dog", _square(2, 2))]
    assert _ap50([([*wrong, right], truth)]).mean() == pytest.approx(1 / 100)
    assert _ap50([([*wrong, wrong[0], right], truth)]).mean() == 0.0
