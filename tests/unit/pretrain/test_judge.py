"""The judge with random weights: its answers fit its logits, and no image's verdict depends on the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretrain.judge import Judge

CONCEPTS, COLOURS, PLACES = ("dog", "cat", "dragon"), ("red", "blue"), ("at night", "on the sea")


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(
        concepts=CONCEPTS,
        colours=COLOURS,
        places=PLACES,
        input_size=32,
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
    ).eval()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(70, 64, 64, 3), dtype=np.uint8)


def test_verdicts_name_what_has_the_largest_logits(judge: Judge, images: np.ndarray) -> None:
    with torch.no_grad():  # 64 px -> 32 px: the mean of 2 x 2 pixels, rounded
        small = images.reshape(70, 32, 2, 32, 2, 3).mean(axis=(2, 4)).round() / 255
        concepts, colours, places = judge(torch.from_numpy(small).permute(0, 3, 1, 2).float())
    assert concepts.shape == (70, 3) and colours.shape == (70, 3) and places.shape == (70, 2)
    threshold = float(concepts.sigmoid().median())
    verdicts = judge.look_at(images, threshold=threshold + 1e-4)
    assert len(verdicts) == 70
    for i, verdict in enumerate(verdicts):
        assert verdict.concepts == {
            c for c, p in zip(CONCEPTS, concepts[i].sigmoid(), strict=True) if p > threshold + 1e-4
        }
        assert verdict.colour == (None, *COLOURS)[int(colours[i].argmax())]
        assert verdict.place == PLACES[int(places[i].argmax())]


def test_a_verdict_does_not_depend_on_the_other_images(judge: Judge, images: np.ndarray) -> None:
    together = judge.look_at(images, threshold=0.5)
    assert [judge.look_at(images[i : i + 1], threshold=0.5)[0] for i in (0, 63, 64, 69)] == [
        together[i] for i in (0, 63, 64, 69)
    ]


def test_every_concept_is_there_from_probability_0_on_and_none_from_above_1(judge: Judge, images: np.ndarray) -> None:
    assert judge.look_at(images[:1], threshold=0.0)[0].concepts == set(CONCEPTS)
    assert judge.look_at(images[:1], threshold=1.1)[0].concepts == set()


def test_from_the_calibrated_threshold_on_as_many_concepts_are_seen_as_asked_for(
    judge: Judge, images: np.ndarray
) -> None:
    for num in (1, 65, 150):
        threshold = judge.calibrate(images, num_concepts=num)
        assert sum(len(verdict.concepts) for verdict in judge.look_at(images, threshold=threshold)) == num
