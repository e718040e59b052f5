"""Polygons cover exactly the pixels of their masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as run_lengths

from diffground.exchange.polygons import joined, simple_parts, trace

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans()).filter(np.any)


def area(polygon: np.ndarray) -> float:
    """By the shoelace formula; positive for one that runs clockwise where y points down."""
    x, y = polygon.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


def picture(*rows: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows])


@pytest.mark.parametrize(
    ("mask", "outlines"),
    [
        (picture("#"), [[(1, 0), (1, 1), (0, 1), (0, 0)]]),
        (picture("##"), [[(2, 0), (2, 1), (0, 1), (0, 0)]]),
        (picture("#.", "##"), [[(1, 0), (1, 1), (2, 1), (2, 2), (0, 2), (0, 0)]]),
        # two pixels that touch at a corner are two outlines
        (picture("#.", ".#"), [[(1, 0), (1, 1), (0, 1), (0, 0)], [(2, 1), (2, 2), (1, 2), (1, 1)]]),
    ],
    ids=["pixel", "bar", "corner", "diagonal"],
)
def test_outlines_run_along_the_edges_of_pixels(mask: np.ndarray, outlines: list[list[tuple[int, int]]]) -> None:
    assert [[tuple(point) for point in loop.tolist()] for loop in trace(mask)] == outlines


def test_a_hole_runs_the_other_way_round() -> None:
    assert sorted(area(loop) for loop in trace(picture("###", "#.#", "###"))) == [-1, 9]


def test_a_ring_is_cut_into_two_parts_through_its_hole() -> None:
    parts = simple_parts(picture("###", "#.#", "###"))
    assert sorted(area(part) for part in parts) == [3, 5]


@given(MASKS)
def test_parts_without_holes_give_the_mask_back(mask: np.ndarray) -> None:
    parts = simple_parts(mask)
    encoded = run_lengths.frPyObjects([part.ravel().tolist() for part in parts], *mask.shape)
    assert np.array_equal(run_lengths.decode(run_lengths.merge(encoded)).astype(bool), mask)
    assert sum(area(part) for part in parts) == mask.sum()
    assert min(area(part) for part in parts) > 0


@given(MASKS)
def test_one_joined_polygon_encloses_the_pixels_without_the_holes(mask: np.ndarray) -> None:
    assert area(joined(mask)) == mask.sum()
