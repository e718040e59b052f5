"""The dense CRF against its formulas, written out as loops over all pairs of pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from diffground.baselines.dense_crf import DenseCrf

CPU = torch.device("cpu")
HEIGHT, WIDTH = 5, 7
SETTINGS = {
    "iterations": 3,
    "appearance_weight": 2.0,
    "position_frac": 0.3,
    "colour_scale": 40.0,
    "smoothness_weight": 0.7,
    "smoothness_px": 1.5,
}
Pixel = tuple[int, int]


@pytest.fixture(scope="module")
def picture() -> tuple[np.ndarray, np.ndarray]:
    """Scores of three labels, float (3, 5, 7), and an image, uint8 (5, 7, 3)."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return rng.random((3, HEIGHT, WIDTH)) + 0.05, image


def by_loops(scores: np.ndarray, image: np.ndarray, sources: set[Pixel]) -> np.ndarray:
    """Mean field with Potts terms; the bilateral sums run over `sources`, the Gaussian ones over all pixels."""
    pixels = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]
    reach_px = 0.3 * WIDTH

    def bilateral(i: Pixel, j: Pixel) -> float:
        near = ((i[0] - j[0]) ** 2 + (i[1] - j[1]) ** 2) / (2 * reach_px**2)
        alike = sum((float(image[i][c]) - float(image[j][c])) ** 2 for c in range(3)) / (2 * 40.0**2)
        return math.exp(-near - alike) if j in sources else 0.0

    def gaussian(i: Pixel, j: Pixel) -> float:
        return math.exp(-((i[0] - j[0]) ** 2 + (i[1] - j[1]) ** 2) / (2 * 1.5**2))

    def normalised(kernel: Callable[[Pixel, Pixel], float]) -> dict[tuple[Pixel, Pixel], float]:
        values = {(i, j): kernel(i, j) for i in pixels for j in pixels if i != j}
        sums = {i: sum(values[i, j] for j in pixels if j != i) for i in pixels}
        return {(i, j): value / math.sqrt(sums[i] * sums[j]) for (i, j), value in values.items()}

    kernels = [(2.0, normalised(bilateral)), (0.7, normalised(gaussian))]
    marginals = {i: scores[:, i[0], i[1]] / scores[:, i[0], i[1]].sum() for i in pixels}
    for _ in range(3):
        following = {}
        for i in pixels:
            energy = -np.log(scores[:, i[0], i[1]])
            for label in range(3):  # every other label's share of every other pixel is paid for
                for weight, kernel in kernels:
                    others = [m for m in range(3) if m != label]
                    energy[label] += weight * sum(
                        kernel[i, j] * sum(marginals[j][m] for m in others) for j in pixels if j != i
                    )
            following[i] = np.exp(-energy) / np.exp(-energy).sum()
        marginals = following
    return np.stack([marginals[i] for i in pixels]).T.reshape(3, HEIGHT, WIDTH)


def test_marginals_are_those_of_the_loops(picture: tuple[np.ndarray, np.ndarray]) -> None:
    expected = by_loops(*picture, sources={(y, x) for y in range(HEIGHT) for x in range(WIDTH)})
    actual = DenseCrf(**SETTINGS).refine(*picture, device=CPU)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert np.abs(actual - picture[0] / picture[0].sum(axis=0)).max() > 0.1


def test_a_large_image_is_summed_over_a_grid(picture: tuple[np.ndarray, np.ndarray]) -> None:
    # 35 pixels, at most 9 sources: every second row and column, from the second on
    expected = by_loops(*picture, sources={(y, x) for y in (1, 3) for x in (1, 3, 5)})
    np.testing.assert_allclose(DenseCrf(**SETTINGS, max_sources=9).refine(*picture, device=CPU), expected, atol=1e-5)


def test_a_kernel_too_large_to_keep_is_computed_anew(
    picture: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = DenseCrf(**SETTINGS).refine(*picture, device=CPU)
    monkeypatch.setattr("diffground.baselines.dense_crf._MAX_KEPT", 0)
    monkeypatch.setattr("diffground.baselines.dense_crf._CHUNK", 8)
    np.testing.assert_allclose(DenseCrf(**SETTINGS).refine(*picture, device=CPU), kept, atol=1e-6)


def test_an_outline_moves_to_the_edge_in_the_picture() -> None:
    # a bright square of 12 px; the scores say it is 16 px wide, and have a hole
    image = np.full((32, 32, 3), 40, dtype=np.uint8)
    image[10:22, 10:22] = 200
    square = image[..., 0] == 200
    scores = np.full((2, 32, 32), 0.4)
    scores[1] = 0.3
    scores[1, 8:24, 8:24], scores[1, 14:17, 14:17] = 0.5, 0.3
    crf = DenseCrf(iterations=5, appearance_weight=3.0, position_frac=0.3, colour_scale=20.0)
    assert not np.array_equal(scores.argmax(axis=0) == 1, square)
    assert np.array_equal(crf.refine(scores, image, device=CPU).argmax(axis=0) == 1, square)


def test_without_weights_the_scores_are_only_normalised(picture: tuple[np.ndarray, np.ndarray]) -> None:
    crf = DenseCrf(**{**SETTINGS, "appearance_weight": 0.0, "smoothness_weight": 0.0})
    np.testing.assert_allclose(crf.refine(*picture, device=CPU), picture[0] / picture[0].sum(axis=0), atol=1e-6)
