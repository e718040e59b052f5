"""Nearest neighbours of images, by features and by pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_CHUNK = 256  # queries at a time, so that the distances to many keys fit in memory


def nearest(queries: np.ndarray, keys: np.ndarray, *, num: int) -> np.ndarray:
    """Indices into `keys` (M, D) of the `num` nearest of each row of `queries` (N, D): int64 (N, num), nearest first.

    Raises: ValueError for more neighbours than keys.
    """
    if not 1 <= num <= len(keys):
        raise ValueError(f"num must be 1 to the number of keys ({len(keys)}), got {num}")
    queries, keys = queries.astype(np.float64), keys.astype(np.float64)
    squares = (keys**2).sum(axis=1)
    found = [np.empty((0, num), dtype=np.int64)]
    for start in range(0, len(queries), _CHUNK):
        # the query's own square is the same for all keys
        distances = squares - 2 * queries[start : start + _CHUNK] @ keys.T  # (B, M)
        found.append(np.argsort(distances, axis=1, kind="stable")[:, :num])
    return np.concatenate(found)


def pixel_rmse(image: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Root mean square difference, 0..1, of an image uint8 (H, W, 3) to each of `others` (K, H, W, 3): float64 (K,)."""
    difference = (others.astype(np.float64) - image) / 255
    return np.sqrt((difference**2).mean(axis=(1, 2, 3)))


def closest(
    images: np.ndarray, features: np.ndarray, keys: np.ndarray, *, render: Callable[[int], np.ndarray], shortlist: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each image uint8 (N, H, W, 3) the one of a large set that is closest by pixels, of the `shortlist` closest by
    features.

    `features` (N, D) are those of `images`, `keys` (M, D) those of the set, whose image k is `render(k)`.
    Returns indices int64 (N,) and RMSE float64 (N,), 0..1.
    """
    candidates = nearest(features, keys, num=shortlist)
    indices, distances = np.zeros(len(images), dtype=np.int64), np.zeros(len(images))
    for i, image in enumerate(images):
        rmse = pixel_rmse(image, np.stack([render(int(k)) for k in candidates[i]]))
        indices[i], distances[i] = candidates[i][rmse.argmin()], rmse.min()
    return indices, distances
