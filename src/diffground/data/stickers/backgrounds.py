"""Backgrounds of the mini world: a dozen calm places, each with the phrase that a caption uses for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
_SUPERSAMPLING = 2


class _Canvas:
    """A drawing surface in unit coordinates, x to the right and y down, 0..1."""

    def __init__(self, rng: np.random.Generator, image_size: int) -> None:
        self.rng = rng
        self.size = image_size * _SUPERSAMPLING
        self.image = Image.new("RGB", (self.size, self.size))
        self._draw = ImageDraw.Draw(self.image)

    def shade(self, colour: Colour, spread: int = 14) -> Colour:
        """`colour`, a little lighter or darker."""
        shift = int(self.rng.integers(-spread, spread + 1))
        red, green, blue = (min(255, max(0, channel + shift)) for channel in colour)
        return red, green, blue

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self._draw.rectangle([v * self.size for v in (x0, y0, x1, y1)], fill=colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        self._draw.ellipse([v * self.size for v in (x - rx, y - ry, x + rx, y + ry)], fill=colour)

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self._draw.polygon([(x * self.size, y * self.size) for x, y in points], fill=colour)

    def sky_and_ground(self, sky: Colour, ground: Colour, horizon: float = 0.6) -> float:
        """Two flat halves; the height of the line between them, a little random, is returned."""
        horizon += float(self.rng.uniform(-0.05, 0.05))
        self.rect(0, 0, 1, horizon, self.shade(sky))
        self.rect(0, horizon, 1, 1, self.shade(ground))
        return horizon


def _grass(c: _Canvas) -> None:
    c.sky_and_ground((150, 205, 240), (110, 180, 80))


def _beach(c: _Canvas) -> None:
    y = c.sky_and_ground((160, 215, 245), (235, 215, 150))
    c.rect(0, y - 0.12, 1, y, (70, 160, 205))


def _sea(c: _Canvas) -> None:
    y = c.sky_and_ground((190, 225, 245), (45, 120, 185), 0.5)
    for k in range(3):
        c.rect(0, y + 0.12 * (k + 1), 1, y + 0.12 * (k + 1) + 0.02, (80, 150, 210))


def _road(c: _Canvas) -> None:
    y = c.sky_and_ground((185, 210, 225), (115, 115, 120), 0.55)
    for k in range(4):
        c.rect(0.05 + 0.26 * k, (1 + y) / 2, 0.18 + 0.26 * k, (1 + y) / 2 + 0.03, (235, 235, 225))


def _room(c: _Canvas) -> None:
    y = c.sky_and_ground((240, 228, 205), (165, 115, 75), 0.7)
    c.rect(0, y - 0.03, 1, y, (250, 245, 235))


def _dusk(c: _Canvas) -> None:
    y = c.sky_and_ground((245, 160, 110), (90, 75, 95), 0.62)
    c.rect(0, 0, 1, y * 0.45, c.shade((170, 105, 140)))


def _snow(c: _Canvas) -> None:
    c.sky_and_ground((175, 195, 215), (242, 246, 250), 0.5)


def _night(c: _Canvas) -> None:
    c.sky_and_ground((25, 30, 65), (45, 60, 55), 0.65)
    for x, y in c.rng.uniform((0.02, 0.02), (0.98, 0.4), size=(6, 2)):
        c.ellipse(float(x), float(y), 0.012, 0.012, (250, 245, 200))


def _desert(c: _Canvas) -> None:
    y = c.sky_and_ground((250, 225, 170), (220, 165, 90))
    c.ellipse(float(c.rng.uniform(0.1, 0.9)), y + 0.12, 0.4, 0.14, (232, 182, 108))


def _forest(c: _Canvas) -> None:
    y = c.sky_and_ground((170, 210, 190), (95, 130, 65), 0.68)
    for k in range(5):
        x = 0.1 + 0.2 * k + float(c.rng.uniform(-0.03, 0.03))
        c.polygon([(x - 0.13, y), (x + 0.13, y), (x, y - 0.42)], c.shade((55, 110, 70), 6))


def _mountains(c: _Canvas) -> None:
    y = c.sky_and_ground((175, 215, 245), (135, 170, 105), 0.66)
    for x in (0.25, 0.75):
        x += float(c.rng.uniform(-0.06, 0.06))
        c.polygon([(x - 0.35, y), (x + 0.35, y), (x, y - 0.38)], c.shade((140, 140, 155), 6))


def _city(c: _Canvas) -> None:
    y = c.sky_and_ground((205, 220, 230), (150, 150, 150), 0.72)
    for k in range(5):
        height = float(c.rng.uniform(0.2, 0.5))
        c.rect(0.2 * k, y - height, 0.2 * k + 0.17, y, c.shade((165, 160, 175), 14))


def _clutter(c: _Canvas) -> None:
    """Up to four small things of no category: stones and boxes on the ground, puffs in the air."""
    for _ in range(int(c.rng.integers(0, 5))):
        x, size = float(c.rng.uniform(0, 1)), float(c.rng.uniform(0.015, 0.05))
        colour = c.shade((150, 145, 140), 60)
        kind = int(c.rng.integers(3))
        if kind == 0:
            c.ellipse(x, float(c.rng.uniform(0.72, 0.97)), size, 0.6 * size, colour)
        elif kind == 1:
            y = float(c.rng.uniform(0.72, 0.95))
            c.rect(x, y, x + size, y + size, colour)
        else:
            c.ellipse(x, float(c.rng.uniform(0.04, 0.3)), 2 * size, 0.7 * size, c.shade((225, 230, 235), 20))


PLACES: dict[str, Callable[[_Canvas], None]] = {
    "on the grass": _grass,
    "on the beach": _beach,
    "on the sea": _sea,
    "on the road": _road,
    "in a room": _room,
    "at dusk": _dusk,
    "in the snow": _snow,
    "at night": _night,
    "in the desert": _desert,
    "in the forest": _forest,
    "in the mountains": _mountains,
    "in the city": _city,
}
"""Caption phrase -> painter."""


def paint_background(rng: np.random.Generator, *, phrase: str, image_size: int) -> Image.Image:
    """An RGB image, image_size x image_size, of the place that `phrase` (a key of PLACES) names."""
    canvas = _Canvas(rng, image_size)
    PLACES[phrase](canvas)
    _clutter(canvas)
    return canvas.image.reduce(_SUPERSAMPLING)
