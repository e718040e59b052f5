"""Protocol I: which triplets are judged, what is counted in which group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from diffground.data.labelled import LabelledSample, image_sample, oracle_sample
from diffground.detection.detector import Instances
from diffground.evaluation.methods import MirroredDetector, foreground_method
from diffground.evaluation.protocol1 import (
    MaskMethod,
    foreground_only,
    harmonic_of_groups,
    join_metrics,
    quality_problem,
    run_protocol1,
)

GROUPS = ("one_seen", "one_unseen", "two_seen")


def box(*, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((10, 10), dtype=bool)
    mask[rows, columns] = True
    return mask


LEFT = box(rows=slice(0, 10), columns=slice(0, 4))  # 40 pixels
RIGHT = box(rows=slice(0, 10), columns=slice(5, 10))  # 50 pixels
HALF_LEFT = box(rows=slice(0, 5), columns=slice(0, 4))  # 20 pixels


BLACK = np.zeros((10, 10, 3), dtype=np.uint8)


def sample(
    key: str, group: str, masks: dict[str, np.ndarray], categories: tuple[str, ...], image: np.ndarray = BLACK
) -> LabelledSample:
    return LabelledSample(
        image_sample(id=key, prompt="", categories=categories, group=group, settings={}, image=image),
        oracle_sample(key, categories=categories, masks=masks),
    )


@pytest.mark.parametrize(
    ("masks", "categories", "problem"),
    [
        ({"dog": LEFT}, ("dog",), None),
        ({}, ("dog",), "not_found"),
        ({"dog": LEFT}, ("dog", "cat"), "not_found"),
        ({"dog": box(rows=slice(0, 1), columns=slice(0, 1))}, ("dog",), None),  # 1 % of the image
        ({"dog": np.zeros((10, 10), dtype=bool)}, ("dog",), "bad_area"),
        ({"dog": box(rows=slice(0, 8), columns=slice(0, 10))}, ("dog",), None),  # 80 %
        ({"dog": box(rows=slice(0, 9), columns=slice(0, 9))}, ("dog",), "bad_area"),  # 81 %
        ({"dog": LEFT, "cat": RIGHT}, ("dog", "cat"), None),
        ({"dog": LEFT, "cat": HALF_LEFT}, ("dog", "cat"), "same_object"),  # IoU 20 / 40
        ({"dog": LEFT, "cat": box(rows=slice(0, 5), columns=slice(1, 4))}, ("dog", "cat"), None),  # 15 / 40
    ],
)
def test_quality_check(masks: dict[str, np.ndarray], categories: tuple[str, ...], problem: str | None) -> None:
    assert quality_problem(masks, categories) == problem


def test_scores_worked_by_hand() -> None:
    samples = [
        sample("a", "one_seen", {"dog": LEFT}, ("dog",)),
        sample("b", "one_seen", {"dog": HALF_LEFT}, ("dog",)),
        sample("c", "one_seen", {"cat": RIGHT}, ("cat",)),
        sample("d", "two_seen", {"dog": LEFT, "cat": RIGHT}, ("cat", "dog")),
        sample("e", "two_seen", {"dog": LEFT}, ("cat", "dog")),  # the cat was not found: not judged
    ]

    def always_left(batch: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        return [dict.fromkeys(s.categories, LEFT) for s in batch]

    result = run_protocol1(
        samples, {"left": always_left, "foreground_only": foreground_method}, groups=GROUPS, batch_size=2
    )
    metrics = result.metrics()
    # dog: (40 + 20) of (40 + 40) pixels; cat: 0 of 90; in two_seen dog 40 of 40 and cat 0 of 90
    assert metrics["left"] == {"one_seen": pytest.approx(37.5), "one_unseen": None, "two_seen": pytest.approx(50)}
    # one object: the foreground is the object; two: dog 40 of 90, cat 50 of 90
    assert metrics["foreground_only"]["one_seen"] == pytest.approx(100)
    assert metrics["foreground_only"]["two_seen"] == pytest.approx(50)
    assert metrics["num_images"] == {"one_seen": 3, "one_unseen": 0, "two_seen": 1}
    assert metrics["num_rejected"] == {"not_found": 1, "bad_area": 0, "same_object": 0, "reviewed": 0}
    one_not_found = {"not_found": 1, "bad_area": 0, "same_object": 0, "reviewed": 0}
    assert metrics["num_rejected_per_category"] == {"cat": one_not_found, "dog": one_not_found}, "both are named in e"
    assert metrics["per_category"]["left"]["one_seen"] == {"dog": pytest.approx(75), "cat": 0}


def test_boundary_iou_and_nmi_worked_by_hand() -> None:
    samples = [
        sample("a", "one_seen", {"dog": LEFT}, ("dog",)),
        sample("b", "two_seen", {"dog": LEFT, "cat": RIGHT}, ("dog", "cat")),
    ]

    def half_of_the_dog(batch: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        return [{"dog": HALF_LEFT, "cat": RIGHT} for _ in batch]

    metrics = run_protocol1(samples, {"half": half_of_the_dog}, groups=GROUPS, batch_size=2).metrics()
    # strips of 1 px: of 10 x 4 pixels the rim is 24, of 5 x 4 it is 14; they share 12 and differ in the rest
    assert metrics["boundary_miou"]["half"]["one_seen"] == pytest.approx(100 * 12 / 26)
    assert metrics["boundary_miou"]["half"]["two_seen"] == pytest.approx(50 * (12 / 26 + 1))
    one = normalized_mutual_info_score(LEFT.ravel(), HALF_LEFT.ravel())
    two = normalized_mutual_info_score((LEFT + 2 * RIGHT).ravel(), (HALF_LEFT + 2 * RIGHT).ravel())
    assert metrics["nmi"]["half"] == {
        "one_seen": pytest.approx(100 * one),
        "one_unseen": None,
        "two_seen": pytest.approx(100 * two),
    }


def test_nothing_to_judge_scores_nothing() -> None:
    metrics = run_protocol1([], {"foreground_only": foreground_method}, groups=GROUPS, batch_size=4).metrics()
    assert metrics["foreground_only"] == dict.fromkeys(GROUPS)
    assert metrics["nmi"]["foreground_only"] == metrics["boundary_miou"]["foreground_only"] == dict.fromkeys(GROUPS)
    assert metrics["num_images"] == dict.fromkeys(GROUPS, 0)


def test_metrics_of_methods_scored_apart_are_those_of_methods_scored_together() -> None:
    samples = [
        sample("a", "one_seen", {"dog": LEFT}, ("dog",)),
        sample("b", "two_seen", {"dog": LEFT, "cat": RIGHT}, ("cat", "dog")),
        sample("c", "two_seen", {"dog": LEFT}, ("cat", "dog")),
    ]

    def always_left(batch: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        return [dict.fromkeys(s.categories, LEFT) for s in batch]

    def metrics(**methods: MaskMethod) -> dict[str, Any]:
        return run_protocol1(samples, methods, groups=GROUPS, batch_size=2).metrics()

    together = metrics(left=always_left, foreground_only=foreground_method)
    baselines = {**metrics(foreground_only=foreground_method), "daam_threshold": 0.4}
    assert join_metrics(baselines, metrics(left=always_left)) == {**together, "daam_threshold": 0.4}


def test_scores_do_not_depend_on_the_batch_size() -> None:
    samples = [sample(str(i), "two_seen", {"dog": LEFT, "cat": RIGHT}, ("dog", "cat")) for i in range(5)]
    results = [
        run_protocol1(samples, {"f": foreground_method}, groups=GROUPS, batch_size=n).metrics() for n in (1, 2, 8)
    ]
    assert results[0] == results[1] == results[2]


def test_foreground_of_nothing_is_nothing() -> None:
    assert foreground_only({}) == {}


@pytest.mark.parametrize(
    ("miou", "expected"),
    [
        ({"one_seen": 60.0, "two_seen": 40.0, "two_seen_unseen": 0.0, "one_unseen": 25.0, "two_unseen": 25.0}, 100 / 3),
        ({"one_seen": 50.0, "two_seen": None, "one_unseen": 25.0}, 100 / 3),  # 2 * 50 * 25 / 75
        ({"one_seen": 50.0, "one_unseen": None}, None),
        ({"one_seen": 0.0, "one_unseen": 0.0}, 0.0),
    ],
)
def test_groups_are_ranked_by_the_harmonic_mean_of_seen_and_unseen(
    miou: dict[str, float | None], expected: float | None
) -> None:
    assert harmonic_of_groups(miou) == pytest.approx(expected)


class WhiteUpTo:
    """Says that what is white in the columns 0 to `last` is a dog: not the same in the mirror."""

    labels = ("hound",)

    def __init__(self, last: int) -> None:
        self._last = last

    def detect(self, images: np.ndarray) -> list[Instances]:
        masks = (images == 255).all(axis=-1)
        masks[:, :, self._last + 1 :] = False
        return [Instances(["hound"], np.array([0.9], dtype=np.float32), mask[None]) for mask in masks]


@pytest.mark.parametrize(
    ("score_threshold", "expected"),
    # of columns 0 to 3, in the mirror 6 to 9, the detector sees 6 and 7: in the image 2 and 3
    [(0.5, box(rows=slice(0, 10), columns=slice(2, 4))), (0.95, np.zeros((10, 10), dtype=bool))],
)
def test_masks_of_the_mirrored_image_are_mirrored_back(score_threshold: float, expected: np.ndarray) -> None:
    image = np.where(LEFT[:, :, None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    of_image = [sample(str(i), "one_seen", {}, ("dog",), image) for i in range(3)]
    method = MirroredDetector(
        detector=WhiteUpTo(7), detector_names={"dog": "hound"}, score_threshold=score_threshold, batch_size=2
    )
    masks = method(of_image)
    assert len(masks) == 3
    for of_sample in masks:
        assert of_sample.keys() == {"dog"}
        np.testing.assert_array_equal(of_sample["dog"], expected)
