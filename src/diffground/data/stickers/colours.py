"""Colour words of the mini world: an artwork repainted in shades of one named colour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from diffground.data.stickers.sprites import Sprite

COLOURS = {
    "red": (214, 40, 40),
    "yellow": (246, 200, 40),
    "green": (60, 160, 60),
    "blue": (45, 105, 215),
    "purple": (135, 70, 180),
    "black": (48, 48, 54),
}
"""Word of a caption -> the colour of medium lightness, RGB 0..255."""

_LIGHTEST = 0.75  # of the way from the colour to white, for the lightest parts of an artwork
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def recolour(sprite: Sprite, colour: str) -> Sprite:
    """`sprite` in shades of `colour` (a key of COLOURS): its median lightness takes the colour, outlines stay dark."""
    luma = sprite.image[..., :3] @ _LUMA / 255
    median = float(np.median(luma[sprite.image[..., 3] >= 128]))
    middle = min(0.95, max(0.05, median))
    dark = (luma / middle).clip(0, 1)[..., None]
    light = ((luma - middle) / (1 - middle)).clip(0, 1)[..., None] * _LIGHTEST
    named = np.array(COLOURS[colour], dtype=np.float64)
    painted = named * dark * (1 - light) + 255 * light
    image = np.concatenate([painted.round().astype(np.uint8), sprite.image[..., 3:]], axis=2)
    return replace(sprite, image=image)
