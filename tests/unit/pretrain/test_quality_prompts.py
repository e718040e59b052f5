"""Prompts of the quality report: every word is asked for with many concepts."""

from __future__ import annotations

import pytest

from diffground.data.stickers.backgrounds import PLACES
from diffground.data.stickers.colours import COLOURS
from diffground.data.stickers.sprites import SpriteBook
from diffground.vocabulary import load_vocabulary
from pretrain.quality import Asked
from pretrain.quality_prompts import quality_prompts

PASCAL_CATEGORIES = load_vocabulary("pascal").categories

# 120 concepts, a multiple of the 6 colours and of the 12 places: in the same order every round, each word would meet
# the same concepts again.
FURTHER = [f"thing{i}" for i in range(100)]
PER_WORD = {"colour": 40, "place": 20}  # 240 prompts of each kind, two rounds


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    book = SpriteBook(train={c: [] for c in PASCAL_CATEGORIES}, val={}, further={c: [] for c in FURTHER})
    return quality_prompts(
        book,
        per_category=1,
        per_pair=1,
        per_further=1,
        num_further_pairs=0,
        per_colour=PER_WORD["colour"],
        per_place=PER_WORD["place"],
        seed=0,
    )


@pytest.mark.parametrize(("kind", "words"), [("colour", COLOURS), ("place", PLACES)])
def test_every_word_meets_many_concepts(asked: list[Asked], kind: str, words: dict[str, object]) -> None:
    assert len(words) * PER_WORD[kind] == 240
    for word in words:
        wishes = [wish for wish in asked if getattr(wish, kind) == word]
        assert len(wishes) == PER_WORD[kind]
        assert all(word in wish.prompt for wish in wishes)
        assert len({wish.categories for wish in wishes}) > 0.75 * len(wishes)


@pytest.mark.parametrize("kind", ["colour", "place"])
def test_every_round_has_every_concept_once_in_an_order_of_its_own(asked: list[Asked], kind: str) -> None:
    concepts = [wish.categories[0] for wish in asked if getattr(wish, kind) is not None]
    first, second = concepts[:120], concepts[120:]
    assert sorted(first) == sorted(second) == sorted([*PASCAL_CATEGORIES, *FURTHER])
    assert first != second


def test_every_prompt_has_noise_of_its_own(asked: list[Asked]) -> None:
    assert len({wish.seed for wish in asked}) == len(asked)
