"""Nearest neighbours by hand and as scikit-learn finds them; copies are recognised by their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from pretrain.neighbours import closest, nearest, pixel_rmse


def test_neighbours_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(300, 5)), rng.normal(size=(70, 5))  # more queries than fit into one chunk
    expected = NearestNeighbors(n_neighbors=4, algorithm="brute").fit(keys).kneighbors(queries, return_distance=False)
    np.testing.assert_array_equal(nearest(queries, keys, num=4), expected)


def test_neighbours_come_nearest_first() -> None:
    keys = np.array([[0.0], [10.0], [4.0]])
    assert nearest(np.array([[9.0], [1.0]]), keys, num=2).tolist() == [[1, 2], [0, 2]]


@pytest.mark.parametrize("num", [0, 4])
def test_a_number_of_neighbours_that_cannot_be_is_refused(num: int) -> None:
    with pytest.raises(ValueError, match=rf"1 to the number of keys \(3\), got {num}"):
        nearest(np.zeros((1, 2)), np.zeros((3, 2)), num=num)


def test_rmse_by_hand() -> None:
    image = np.zeros((1, 2, 3), dtype=np.uint8)
    one_pixel_white = image.copy()
    one_pixel_white[0, 0] = 255
    # uint8 must not wrap around: 255 apart in all, in half and in none of the values
    others = np.stack([np.full_like(image, 255), one_pixel_white, image])
    np.testing.assert_allclose(pixel_rmse(image, others), [1, np.sqrt(0.5), 0])


def test_of_the_shortlist_by_features_the_closest_by_pixels_is_taken() -> None:
    grey = [np.full((2, 2, 3), level, dtype=np.uint8) for level in (0, 100, 130, 50)]
    keys = np.array([[0.0], [1.0], [2.0], [9.0]])
    indices, distances = closest(
        np.stack([grey[3], grey[1]]), np.array([[0.2], [8.0]]), keys, render=lambda k: grey[k], shortlist=2
    )
    # 50 is as far from 0 as from 100, the first of which is nearer by features; its copy, key 3, is not on its list.
    # 100 has keys 3 and 2 on its list, of levels 50 and 130.
    assert indices.tolist() == [0, 2]
    np.testing.assert_allclose(distances, [50 / 255, 30 / 255])
