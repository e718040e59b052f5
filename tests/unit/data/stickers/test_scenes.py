"""Masks show what the image shows, and captions say what was painted."""

import itertools

import numpy as np
import pytest

from diffground.data.stickers.colours import COLOURS
from diffground.data.stickers.scenes import caption, compose_scene
from diffground.data.stickers.sprites import Sprite

SEEDS = range(60)
WHITE, BLACK, CLEAR = (255, 255, 255, 255), (0, 0, 0, 255), (0, 0, 0, 0)


def square(colour, category="dog"):
    return Sprite(category=category, name="drawing:square", image=np.full((40, 40, 4), colour, dtype=np.uint8))


def compose(seed, *paints):
    """The same seed puts squares of whatever paint in the same places."""
    return compose_scene(np.random.default_rng(seed), sprites=[square(paint) for paint in paints])


def visible_share(seed, i):
    """How much of each pixel is object i of three, float (S, S) in 0..1: what changes when it is white, not black."""
    black = compose(seed, *[BLACK] * 3).image.astype(int)
    white = compose(seed, *[WHITE if k == i else BLACK for k in range(3)]).image.astype(int)
    change = (white - black).max(axis=2)
    return change / change.max()


def test_a_mask_is_where_the_image_shows_more_of_the_object_than_of_others():
    for seed in SEEDS:
        masks = compose(seed, *[BLACK] * 3).masks
        assert masks.sum(axis=0).max() == 1
        for i in range(3):
            shown = visible_share(seed, i)
            assert masks[i][shown > 0.51].all()
            assert not masks[i][shown < 0.12].any()  # two edges of others, each just below one half, may lie on it


def test_what_stands_lower_hides_what_it_overlaps():
    num_overlaps = 0
    for seed in SEEDS:
        masks = compose(seed, *[BLACK] * 3).masks
        alone = [compose(seed, *[BLACK if k == i else CLEAR for k in range(3)]).masks[i] for i in range(3)]
        if not all((whole >= mask).all() for whole, mask in zip(alone, masks, strict=True)):
            continue  # the three were put elsewhere, where less of them is hidden
        bottoms = [np.flatnonzero(whole.any(axis=1)).max() for whole in alone]
        for i, k in itertools.permutations(range(3), 2):
            if bottoms[i] > bottoms[k] + 1 and (alone[i] & alone[k]).any():
                num_overlaps += 1
                assert not (masks[k] & alone[i]).any()
    assert num_overlaps > 20, "too few overlaps for this test and the one above"


@pytest.mark.parametrize("colour", COLOURS)
def test_the_colour_word_is_painted_and_in_the_caption(colour):
    sprites = [square((180, 120, 60, 255), "dog"), square((90, 130, 90, 255), "pottedplant")]
    for seed in range(5):
        scene = compose_scene(np.random.default_rng(seed), sprites=sprites, colours=(colour, None))
        shown = np.median(scene.image[scene.masks[0]], axis=0)
        distances = {word: np.abs(shown - named).sum() for word, named in COLOURS.items()}
        assert min(distances, key=distances.get) == colour
        phrases = {"pottedplant": "potted plant"}
        expected = f"a photograph of a {colour} dog and a potted plant"
        assert caption(scene, phrases=phrases, with_place=False) == expected
        assert caption(scene, phrases=phrases, with_place=True) == f"{expected} {scene.place}"


@pytest.mark.parametrize("num", [0, 4])
def test_no_object_and_more_than_three_are_refused(num):
    with pytest.raises(ValueError, match=f"1 to 3 objects, got {num}"):
        compose(0, *[BLACK] * num)
