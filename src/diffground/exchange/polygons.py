"""Masks as polygons along the edges of pixels, so that a polygon covers exactly the pixels of its mask.

Points are (x, y) of corners of pixels: a mask of one pixel at the top left is the square
(0, 0), (1, 0), (1, 1), (0, 1).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
Edge = tuple[int, int, int, int]
"""x, y of the corner where it begins, dx, dy of its direction."""


def trace(mask: np.ndarray) -> list[np.ndarray]:
    """bool (H, W) -> its outlines, each int (N, 2), closed without repeating the first point.

    Outer ones run clockwise, those of holes anticlockwise. Pixels that touch only at a corner have separate outlines;
    pixels of the background that touch at a corner belong to one hole.
    """
    inside = np.pad(mask, 1)
    edges: dict[Edge, None] = {}  # an ordered set: corner and direction, with the mask on the right
    for (dx, dy), (shift_x, shift_y), (start_x, start_y) in (
        ((1, 0), (0, -1), (0, 0)),  # top edge of a pixel
        ((0, 1), (1, 0), (1, 0)),  # right
        ((-1, 0), (0, 1), (1, 1)),  # bottom
        ((0, -1), (-1, 0), (0, 1)),  # left
    ):
        neighbour = np.roll(inside, (-shift_y, -shift_x), axis=(0, 1))[1:-1, 1:-1]
        for y, x in np.argwhere(mask & ~neighbour).tolist():
            edges[x + start_x, y + start_y, dx, dy] = None
    loops = []
    while edges:
        loops.append(_take_loop(edges))
    return loops


def _take_loop(edges: dict[Edge, None]) -> np.ndarray:
    """One outline, whose edges are taken out of `edges`; only corners where it turns are points."""
    start = edge = next(iter(edges))
    points, taken = [], []
    while True:
        x, y, dx, dy = edge
        x, y = x + dx, y + dy
        # where two pixels touch at a corner two edges leave it, and a right turn stays with the same pixel
        ways = ((x, y, -dy, dx), (x, y, dx, dy), (x, y, dy, -dx))
        following = next(way for way in ways if way in edges)
        if following[2:] != edge[2:]:
            points.append((x, y))
        taken.append(edge)
        edge = following
        if edge == start:
            break
    for edge in taken:
        del edges[edge]
    return np.array(points, dtype=np.int64)


def simple_parts(mask: np.ndarray) -> list[np.ndarray]:
    """bool (H, W) -> polygons without holes, each int (N, 2), whose union is the mask.

    A region with a hole is cut along a row of pixels through the hole; both sides of the cut share its edge.
    """
    parts = []
    numbered, num = ndimage.label(mask)
    for i in range(1, num + 1):
        region = numbered == i
        hole = ndimage.binary_fill_holes(region, structure=_EIGHT_NEIGHBOURS) & ~region
        if not hole.any():
            [outline] = trace(region)
            parts.append(outline)
            continue
        first_hole, _ = ndimage.label(hole, structure=_EIGHT_NEIGHBOURS)
        rows = np.flatnonzero((first_hole == 1).any(axis=1))
        cut = int(rows[len(rows) // 2])
        for half in (slice(None, cut), slice(cut, None)):
            side = np.zeros_like(region)
            side[half] = region[half]
            parts += simple_parts(side)
    return parts


def joined(mask: np.ndarray) -> np.ndarray:
    """bool (H, W) -> one polygon, int (N, 2): outlines and holes, joined by bridges of width 0.

    A bridge runs there and back between the two nearest points, so it encloses nothing.
    """
    loops = sorted(trace(mask), key=len, reverse=True)
    polygon = loops[0]
    for loop in loops[1:]:
        distance = ((polygon[:, None] - loop[None]) ** 2).sum(axis=2)  # (N, M)
        i, j = np.unravel_index(distance.argmin(), distance.shape)
        around = np.concatenate([loop[j:], loop[: j + 1]])
        polygon = np.concatenate([polygon[: i + 1], around, polygon[i:]])
    return polygon
