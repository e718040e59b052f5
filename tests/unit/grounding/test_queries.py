"""Padding of words, and what training does to their text."""

from __future__ import annotations

import pytest
import torch

from diffground.grounding.queries import add_noise, keep_text, stack_queries

VECTORS = {"dog": torch.tensor([1.0, 2.0]), "cat": torch.tensor([3.0, 4.0])}


def test_samples_with_fewer_words_are_padded_with_zeros() -> None:
    text, exists = stack_queries([["dog"], ["cat", "dog"]], VECTORS)
    assert text.tolist() == [[[1, 2], [0, 0]], [[3, 4], [1, 2]]]
    assert exists.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("words", [[], [["dog"], []]])
def test_a_sample_without_words_is_refused(words: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="at least one word"):
        stack_queries(words, VECTORS)


def test_without_noise_the_text_stays_as_it_is() -> None:
    text = torch.randn(3, 2, 5)
    assert torch.equal(add_noise(text, noise=0, scale=2.0, generator=torch.Generator()), text)


def test_noise_has_the_asked_spread() -> None:
    noisy = add_noise(torch.zeros(100, 10, 20), noise=0.5, scale=2.0, generator=torch.Generator().manual_seed(0))
    assert float(noisy.std()) == pytest.approx(1.0, abs=0.02)


def test_about_the_asked_share_of_queries_loses_its_text() -> None:
    exists = torch.ones(500, 2, dtype=torch.bool)
    kept = keep_text(exists, drop_frac=0.3, generator=torch.Generator().manual_seed(0))
    assert kept is not None
    assert float((~kept).float().mean()) == pytest.approx(0.3, abs=0.05)
    assert keep_text(exists, drop_frac=0, generator=torch.Generator()) is None
