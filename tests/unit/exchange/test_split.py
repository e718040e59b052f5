"""Splits by prompt."""

from __future__ import annotations

import pytest

from diffground.errors import UserError
from diffground.exchange.split import parse_split, split_of

PROMPTS = [f"a photograph of scene {i}" for i in range(4000)]


@pytest.mark.parametrize(
    ("text", "shares"),
    [("1", (1.0,)), ("0.8,0.2", (0.8, 0.2)), ("0.8, 0.1,0.1", (0.8, 0.1, 0.1)), ("0,0,1", (0.0, 0.0, 1.0))],
)
def test_shares_that_sum_to_1_are_read(text: str, shares: tuple[float, ...]) -> None:
    assert parse_split(text) == shares


@pytest.mark.parametrize(
    "text", ["", "0.8", "0.8,0.1", "1.2,-0.2", "a,b", "nan", "inf", "0.25,0.25,0.25,0.25", "80,20"]
)
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--split must be 1 to 3 shares .* that sum to 1, e\.g\. 0\.8,0\.1,0\.1"):
        parse_split(text)


def test_prompts_are_split_by_the_shares() -> None:
    splits = [split_of(prompt, (0.8, 0.1, 0.1), seed=0) for prompt in PROMPTS]
    assert splits.count("train") == pytest.approx(3200, abs=100)
    assert splits.count("val") == pytest.approx(400, abs=75)
    assert set(splits) == {"train", "val", "test"}


def test_a_share_of_0_gets_nothing_and_another_seed_gives_another_split() -> None:
    assert {split_of(prompt, (0.0, 0.5, 0.5), seed=0) for prompt in PROMPTS} == {"val", "test"}
    assert {split_of(prompt, (1.0, 0.0), seed=0) for prompt in PROMPTS} == {"train"}
    first, other = ([split_of(prompt, (0.5, 0.5), seed=seed) for prompt in PROMPTS] for seed in (0, 1))
    assert sum(a != b for a, b in zip(first, other, strict=True)) == pytest.approx(2000, abs=150)
