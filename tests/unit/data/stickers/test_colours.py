"""Artworks repainted in a named colour."""

import numpy as np
import pytest

from diffground.data.stickers.colours import COLOURS, recolour
from diffground.data.stickers.sprites import Sprite


def sprite_of(image):
    return Sprite(category="dog", name="drawing:dog", image=np.array(image, dtype=np.uint8))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("painted", [(128, 128, 128), (230, 180, 40), (40, 60, 200)])
def test_an_artwork_of_one_lightness_takes_the_named_colour(colour, painted):
    image = recolour(sprite_of(np.full((4, 5, 4), (*painted, 255))), colour).image
    assert image.shape == (4, 5, 4) and image.dtype == np.uint8
    assert np.abs(image[..., :3].astype(int) - COLOURS[colour]).max() <= 1  # rounding


def test_shades_by_hand():
    # The median is 128: black stays black, half of it takes half of blue, (45, 105, 215), and white comes to 3/4 of the
    # way to white. What is almost transparent has no part in the median.
    greys = [0, 64, 128, 128, 255, 255, 255, 255, 255]
    alphas = [255, 255, 255, 255, 255, 100, 100, 100, 100]
    image = recolour(sprite_of([[(g, g, g, a) for g, a in zip(greys, alphas, strict=True)]]), "blue").image
    by_hand = [(0, 0, 0), (22.5, 52.5, 107.5), (45, 105, 215), (45, 105, 215), (202.5, 217.5, 245)]
    assert np.abs(image[0, :5, :3] - np.array(by_hand)).max() <= 1


@pytest.mark.parametrize("colour", COLOURS)
def test_shape_and_name_stay_and_so_does_the_original(colour):
    original = sprite_of(np.random.default_rng(0).integers(0, 256, size=(9, 7, 4)))
    before = original.image.copy()
    repainted = recolour(original, colour)
    np.testing.assert_array_equal(repainted.image[..., 3], before[..., 3])
    assert (repainted.category, repainted.name) == (original.category, original.name)
    np.testing.assert_array_equal(original.image, before)
    assert (repainted.image[..., :3] != before[..., :3]).any()
