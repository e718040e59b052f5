"""The Fréchet distance between two sets of features, each modelled as a Gaussian (FID uses Inception's features)."""

from __future__ import annotations

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mean_a - mean_b|² + tr(C_a + C_b - 2 (C_a C_b)^½) of features float (N, D) and (M, D).

    It is biased upward where N or M is small compared with D: compare distances of equally large sets only.
    Raises: ValueError for fewer than two samples in a set.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs at least 2 samples, got {len(a)} and {len(b)}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = (np.cov(features, rowvar=False).reshape(a.shape[1], -1) for features in (a, b))  # (D, D)
    values, vectors = np.linalg.eigh(cov_a)
    root_a = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    # C_a C_b has the eigenvalues of the symmetric C_a^½ C_b C_a^½, which are real and not negative
    cross = np.sqrt(np.linalg.eigvalsh(root_a @ cov_b @ root_a).clip(min=0)).sum()
    distance = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross
    return max(0.0, float(distance))
