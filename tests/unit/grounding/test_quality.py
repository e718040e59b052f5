import numpy as np
import pytest

from diffground.grounding.quality import sample_quality

PROBS = np.array([[0.9, 0.7, 0.1, 0.0]])
MASK = np.array([[True, True, False, False]])


def test_quality_is_the_mean_probability_within_the_mask():
    assert sample_quality({"dog": PROBS}, {"dog": MASK}) == pytest.approx(0.8)


def test_the_worst_category_counts():
    other = np.array([[0.0, 0.0, 0.6, 0.0]])
    assert sample_quality({"dog": PROBS, "cat": other}, {"dog": MASK, "cat": other > 0.5}) == pytest.approx(0.6)


def test_a_category_without_a_mask_has_none():
    assert sample_quality({"dog": PROBS, "cat": PROBS}, {"dog": MASK, "cat": np.zeros_like(MASK)}) == 0
