"""The Fréchet distance between Gaussians in closed form, and as scipy computes its matrix root."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from pretrain.frechet import frechet_distance


def with_moments(mean: np.ndarray, covariance: np.ndarray, *, num: int = 200) -> np.ndarray:
    """Samples (num, D) whose sample mean and sample covariance are exactly these."""
    dim = len(mean)
    samples = np.random.default_rng(dim).normal(size=(num, dim))
    samples -= samples.mean(axis=0)
    white = samples @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(samples, rowvar=False))).T)
    return white @ np.linalg.cholesky(covariance).T + mean


def test_two_gaussians_on_the_line() -> None:
    # (mean difference)² + (difference of the standard deviations)² = 3² + (5 - 1)²
    a = with_moments(np.array([1.0]), np.array([[25.0]]))
    b = with_moments(np.array([4.0]), np.array([[1.0]]))
    assert frechet_distance(a, b) == pytest.approx(25)


def test_independent_dimensions_add_up() -> None:
    # (0² + (2 - 1)²) + (1² + (3 - 1)²)
    a = with_moments(np.zeros(2), np.diag([4.0, 9.0]))
    b = with_moments(np.array([0.0, 1.0]), np.eye(2))
    assert frechet_distance(a, b) == pytest.approx(6)


def test_correlated_dimensions_as_with_scipy_s_root() -> None:
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(2, 6, 6))
    cov_a, cov_b = (factor @ factor.T + 0.1 * np.eye(6) for factor in factors)
    mean_a, mean_b = rng.normal(size=(2, 6))
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(with_moments(mean_a, cov_a), with_moments(mean_b, cov_b)) == pytest.approx(expected)


def test_a_set_is_at_no_distance_from_itself_however_few_its_samples() -> None:
    few = np.random.default_rng(1).normal(size=(5, 12)).astype(np.float32)  # the covariance has no full rank
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-5)


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 samples, got 3 and 1"):
        frechet_distance(np.zeros((3, 2)), np.zeros((1, 2)))
