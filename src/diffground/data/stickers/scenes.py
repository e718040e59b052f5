"""Scenes of the mini world: one to three artworks on a background, with exact instance masks and a caption.

The difficulty is fixed here: sizes, jitter and overlap are constants, not parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from diffground.data.stickers.backgrounds import PLACES, paint_background
from diffground.data.stickers.colours import recolour
from diffground.data.stickers.sprites import Sprite
from diffground.vocabulary import photograph_of

REFERENCE_PX = 64
MIRRORED_FRAC = 0.5
_LONGEST_SIDE_PX = {1: (31, 47), 2: (23, 34), 3: (17, 25)}  # by number of objects, at REFERENCE_PX
_CENTRES_X = {1: (32,), 2: (18, 46), 3: (12, 32, 52)}
_JITTER_X_PX = {1: 8.0, 2: 4.0, 3: 2.5}
_CENTRE_Y_PX, _JITTER_Y_PX = 36.0, 6.0
_ROTATION_DEG = 10.0
_BRIGHTNESS, _SATURATION = 0.12, 0.25
_HUE_DEG = 12.0
_MIN_VISIBLE_FRAC = 0.6  # of an object, where others lie on top of it
_MIN_ALPHA = 128


@dataclass(frozen=True)
class Scene:
    """`image` uint8 (S, S, 3); `masks` bool (N, S, S), disjoint, in the order of `sprites`, which is left to right.

    `colours`: the word of COLOURS that each object was repainted in, None where it was not.
    """

    image: np.ndarray
    masks: np.ndarray
    sprites: tuple[Sprite, ...]
    colours: tuple[str | None, ...]
    place: str


def compose_scene(
    rng: np.random.Generator,
    *,
    sprites: Sequence[Sprite],
    image_size: int = REFERENCE_PX,
    colours: Sequence[str | None] = (),
    mirrored_frac: float = MIRRORED_FRAC,
) -> Scene:
    """Paint a random place and put 1 to 3 `sprites` on it, from left to right, repainted where `colours` names a word.

    Objects may overlap: of ten layouts the first is taken that leaves at least 60 % of each visible, else the last.
    `mirrored_frac`: chance of each to be mirrored.

    Raises: ValueError for another number of sprites.
    """
    num = len(sprites)
    if num not in _CENTRES_X:
        raise ValueError(f"a scene shows 1 to 3 objects, got {num}")
    colours = tuple(colours) or (None,) * num
    painted = [
        sprite if word is None else recolour(sprite, word) for sprite, word in zip(sprites, colours, strict=True)
    ]
    place = str(rng.choice(list(PLACES)))
    canvas = paint_background(rng, phrase=place, image_size=image_size)
    layers = [
        _vary(
            rng,
            sprite,
            mirrored_frac=mirrored_frac,
            hue=word is None,
            longest_px=rng.uniform(*_LONGEST_SIDE_PX[num]) * image_size / REFERENCE_PX,
        )
        for sprite, word in zip(painted, colours, strict=True)
    ]
    masks, corners = _arrange(rng, layers, image_size=image_size)
    for i in _back_to_front(corners, layers):
        canvas.paste(layers[i], corners[i], layers[i])
    return Scene(image=np.asarray(canvas), masks=masks, sprites=tuple(sprites), colours=colours, place=place)


def caption(scene: Scene, *, phrases: Mapping[str, str], with_place: bool) -> str:
    """ "a photograph of a blue dog and a potted plant on the grass"; `phrases` maps a category to its words."""
    words = [
        f"{colour} {phrases.get(sprite.category, sprite.category)}"
        if colour
        else phrases.get(sprite.category, sprite.category)
        for sprite, colour in zip(scene.sprites, scene.colours, strict=True)
    ]
    return photograph_of(*words) + (f" {scene.place}" if with_place else "")


def _vary(
    rng: np.random.Generator, sprite: Sprite, *, mirrored_frac: float, hue: bool, longest_px: float
) -> Image.Image:
    """`sprite` mirrored or not, turned, scaled, its colours shifted a little (the hue only where `hue`). RGBA."""
    image = Image.fromarray(sprite.image)
    if rng.random() < mirrored_frac:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = ImageEnhance.Brightness(image).enhance(1 + rng.uniform(-1, 1) * _BRIGHTNESS)
    image = ImageEnhance.Color(image).enhance(1 + rng.uniform(-1, 1) * _SATURATION)
    turn = rng.uniform(-1, 1) * _HUE_DEG
    if hue:
        image = _turn_hue(image, degrees=turn)
    image = image.rotate(rng.uniform(-1, 1) * _ROTATION_DEG, Image.Resampling.BILINEAR, expand=True)
    factor = longest_px / max(image.size)
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    # HAMMING antialiases without overshoot, so no halos; PIL resizes RGBA premultiplied.
    return image.resize(size, Image.Resampling.HAMMING)


def _turn_hue(image: Image.Image, *, degrees: float) -> Image.Image:
    hue, saturation, value = image.convert("RGB").convert("HSV").split()
    shift = round(degrees / 360 * 256)
    turned = hue.point([(level + shift) % 256 for level in range(256)])
    rgb = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    rgb.putalpha(image.getchannel("A"))
    return rgb


def _arrange(
    rng: np.random.Generator, layers: list[Image.Image], *, image_size: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Random places from left to right. Returns the visible masks bool (N, S, S) and the corners (x, y) of the layers.

    The last of ten tries is taken, whatever it hides.
    """
    num, scale = len(layers), image_size / REFERENCE_PX
    for _ in range(10):
        corners = []
        for layer, centre_x in zip(layers, _CENTRES_X[num], strict=True):
            x = (centre_x + rng.uniform(-1, 1) * _JITTER_X_PX[num]) * scale
            y = (_CENTRE_Y_PX + rng.uniform(-1, 1) * _JITTER_Y_PX) * scale
            corners.append((round(x - layer.width / 2), round(y - layer.height / 2)))
        whole = np.stack([_footprint(layer, corner, image_size) for layer, corner in zip(layers, corners, strict=True)])
        masks = whole.copy()
        hidden = np.zeros((image_size, image_size), dtype=bool)
        for i in reversed(_back_to_front(corners, layers)):
            masks[i] &= ~hidden
            hidden |= whole[i]
        if (masks.sum(axis=(1, 2)) >= _MIN_VISIBLE_FRAC * whole.sum(axis=(1, 2))).all():
            break
    return masks, corners


def _back_to_front(corners: list[tuple[int, int]], layers: list[Image.Image]) -> list[int]:
    """Objects that stand lower in the image are nearer."""
    return sorted(range(len(layers)), key=lambda i: corners[i][1] + layers[i].height)


def _footprint(layer: Image.Image, corner: tuple[int, int], image_size: int) -> np.ndarray:
    """The pixels that `layer` covers, bool (S, S)."""
    alpha = Image.new("L", (image_size, image_size))
    alpha.paste(layer.getchannel("A"), corner)
    return np.asarray(alpha) >= _MIN_ALPHA
