"""Scenes of the mini world: one to three artworks on a background, with exact instance masks and a caption.

The difficulty is fixed here: sizes, jitter and overlap are constants, not parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from diffground.vocabulary import with_article

from .backgrounds import PLACES, paint_background
from .sprites import Sprite

REFERENCE_PX = 64
_LONGEST_SIDE_PX = {1: (36, 45), 2: (26, 32), 3: (19, 23)}  # by number of objects, at REFERENCE_PX
_CENTRES_X = {1: (32,), 2: (17, 47), 3: (12, 32, 52)}
_JITTER_X_PX = {1: 6.0, 2: 2.5, 3: 1.5}
_CENTRE_Y_PX, _JITTER_Y_PX = 36.0, 5.0
_ROTATION_DEG = 4.0
_BRIGHTNESS = 0.06
_MIN_ALPHA = 128


@dataclass(frozen=True)
class Scene:
    """`image` uint8 (S, S, 3); `masks` bool (N, S, S), disjoint, in the order of `sprites`, which is left to right."""

    image: np.ndarray
    masks: np.ndarray
    sprites: tuple[Sprite, ...]
    place: str


def compose_scene(rng: np.random.Generator, *, sprites: list[Sprite], image_size: int = REFERENCE_PX) -> Scene:
    """Paint a random place and put 1 to 3 `sprites` on it, from left to right.

    Raises: ValueError for another number of sprites.
    """
    num = len(sprites)
    if num not in _CENTRES_X:
        raise ValueError(f"a scene shows 1 to 3 objects, got {num}")
    scale = image_size / REFERENCE_PX
    place = str(rng.choice(list(PLACES)))
    canvas = paint_background(rng, phrase=place, image_size=image_size)
    alphas = []
    for sprite, centre_x in zip(sprites, _CENTRES_X[num], strict=True):
        x = (centre_x + rng.uniform(-1, 1) * _JITTER_X_PX[num]) * scale
        y = (_CENTRE_Y_PX + rng.uniform(-1, 1) * _JITTER_Y_PX) * scale
        alphas.append(
            _paste(canvas, sprite, rng, centre=(x, y), longest_px=rng.uniform(*_LONGEST_SIDE_PX[num]) * scale)
        )
    masks = np.zeros((num, image_size, image_size), dtype=bool)
    hidden = np.zeros((image_size, image_size), dtype=bool)
    for i in reversed(range(num)):  # later objects lie on top
        masks[i] = (alphas[i] >= _MIN_ALPHA) & ~hidden
        hidden |= masks[i]
    return Scene(image=np.asarray(canvas), masks=masks, sprites=tuple(sprites), place=place)


def caption(scene: Scene, *, phrases: dict[str, str], with_place: bool) -> str:
    """ "a photograph of a dog and a potted plant on the grass"; `phrases` maps a category to its words."""
    named = " and ".join(with_article(phrases.get(sprite.category, sprite.category)) for sprite in scene.sprites)
    return f"a photograph of {named}" + (f" {scene.place}" if with_place else "")


def _paste(
    canvas: Image.Image, sprite: Sprite, rng: np.random.Generator, *, centre: tuple[float, float], longest_px: float
) -> np.ndarray:
    """Draw `sprite` onto `canvas` in place. Returns its alpha on the canvas, uint8 (S, S)."""
    image = Image.fromarray(sprite.image)
    image = ImageEnhance.Brightness(image).enhance(1 + rng.uniform(-1, 1) * _BRIGHTNESS)
    image = image.rotate(rng.uniform(-1, 1) * _ROTATION_DEG, Image.Resampling.BILINEAR, expand=True)
    factor = longest_px / max(image.size)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    # HAMMING antialiases without overshoot, so no halos; PIL resizes RGBA premultiplied.
    image = image.resize(size, Image.Resampling.HAMMING)
    corner = round(centre[0] - image.width / 2), round(centre[1] - image.height / 2)
    alpha = Image.new("L", canvas.size)
    alpha.paste(image.getchannel("A"), corner)
    canvas.paste(image, corner, image)
    return np.asarray(alpha)
