"""Boundary IoU against its definition, pixel by pixel, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from diffground.evaluation.boundary import BoundaryCounts, strip_of, strip_width_px


def strip_by_definition(mask: np.ndarray, width_px: int) -> np.ndarray:
    """Mask pixels with a pixel of the outside, or of beyond the image, at most `width_px` rows and columns away."""
    height, width = mask.shape
    strip = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        for v in range(y - width_px, y + width_px + 1):
            for u in range(x - width_px, x + width_px + 1):
                if not (0 <= v < height and 0 <= u < width) or not mask[v, u]:
                    strip[y, x] = True
    return strip


def blob(seed: int, shape: tuple[int, int] = (24, 30)) -> np.ndarray:
    rows, columns = np.indices(shape)
    rng = np.random.default_rng(seed)
    y, x, radius = rng.uniform(4, 20), rng.uniform(4, 26), rng.uniform(4, 12)
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def boundary_iou(prediction: np.ndarray, target: np.ndarray, *, dilation_ratio: float = 0.02) -> float:
    counts = BoundaryCounts(dilation_ratio=dilation_ratio)
    counts.update(category="dog", prediction=prediction, target=target)
    return counts.table().iou["dog"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width_px", [1, 3])
def test_strip_is_the_one_of_the_definition(seed: int, width_px: int) -> None:
    mask = blob(seed) ^ (np.random.default_rng(seed).random((24, 30)) < 0.01)
    assert mask.any()
    np.testing.assert_array_equal(strip_of(mask, width_px=width_px), strip_by_definition(mask, width_px))


@pytest.mark.parametrize("seed", range(4))
def test_boundary_iou_is_the_one_of_the_definition(seed: int) -> None:
    a, b = blob(seed), blob(seed + 10)
    for ratio in (0.02, 0.1):
        width_px = max(1, round(ratio * (24**2 + 30**2) ** 0.5))
        strip_a, strip_b = strip_by_definition(a, width_px), strip_by_definition(b, width_px)
        expected = (strip_a & strip_b).sum() / (strip_a | strip_b).sum()
        assert boundary_iou(a, b, dilation_ratio=ratio) == pytest.approx(expected)


def test_boundary_iou_worked_by_hand() -> None:
    # 10 x 10 px: strips of 1 px (0.02 * 14.1 rounds to 0). A 6 x 6 square has a rim of 20 pixels. Moved one column to
    # the right, the rims share 5 pixels of the upper and 5 of the lower edge, 10 of 30.
    a, b = np.zeros((2, 10, 10), dtype=bool)
    a[2:8, 1:7], b[2:8, 2:8] = True, True
    assert strip_of(a, width_px=1).sum() == 20
    assert boundary_iou(a, b) == pytest.approx(10 / 30)
    assert boundary_iou(a, a) == 1
    assert boundary_iou(~a & False, a) == 0


@pytest.mark.parametrize(
    ("shape", "width_px"),
    [((10, 10), 1), ((64, 64), 2), ((30, 40), 1), ((300, 400), 10), ((512, 512), 14)],
)
def test_strip_width_follows_the_diagonal(shape: tuple[int, int], width_px: int) -> None:
    assert strip_width_px(shape) == width_px


def test_counts_are_summed_over_images_before_dividing() -> None:
    counts = BoundaryCounts()
    first, second = (blob(0), blob(10)), (blob(1), blob(1))
    for prediction, target in (first, second):
        counts.update(category="dog", prediction=prediction, target=target)
    strips = [[strip_by_definition(m, 1) for m in pair] for pair in (first, second)]
    hits = sum(int((p & t).sum()) for p, t in strips)
    assert counts.table().iou == {"dog": hits / sum(int((p | t).sum()) for p, t in strips)}
