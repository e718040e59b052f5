"""The banks of contexts that ship with the package name what they should, and nothing else; prompts with them fit."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from diffground.contexts.bank import ANY, read_bank
from diffground.contexts.lengthen import TokenLimit
from diffground.contexts.words import known_categories, named_categories
from diffground.data.stickers.backgrounds import PLACES
from diffground.reproduction.smoke import build_tokenizer
from diffground.vocabulary import load_vocabulary, photograph_of

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "src/diffground/tables"
BANKS = ("contexts.yaml", "contexts_stickers.yaml")
CLIP_TOKENS = 77


def entries(name):
    content = yaml.safe_load((TABLES / name).read_text())
    return [(category, context) for category, contexts in content.items() for context in contexts]


@pytest.mark.parametrize("name", BANKS)
def test_no_context_names_another_category(name):
    assert len(entries(name)) >= 12
    assert [
        (category, context, other)
        for category, context in entries(name)
        for other in named_categories(context, known_categories())
        if other != category
    ] == []


@pytest.mark.parametrize("name", BANKS)
def test_no_context_comes_twice_in_a_category(name):
    assert len(set(entries(name))) == len(entries(name))


@pytest.mark.parametrize("vocabulary", ["pascal", "coco"])
def test_every_category_has_at_least_six(vocabulary):
    loaded = load_vocabulary(vocabulary, unseen=["dog"])
    bank = read_bank(TABLES / "contexts.yaml", loaded)
    assert set(bank.contexts) == {*loaded.categories, ANY}
    assert min(len(contexts) for contexts in bank.contexts.values()) >= 6


def test_the_stickers_bank_has_the_places_of_the_mini_world():
    bank = read_bank(TABLES / "contexts_stickers.yaml", load_vocabulary("pascal", unseen=["dog"]))
    assert bank.contexts == {ANY: tuple(PLACES)}


def longest_prompts(name, vocabulary, limit):
    """Each context behind its category, and behind the two longest categories, as it may follow a pair."""
    phrases = load_vocabulary(vocabulary, unseen=["dog"]).phrases
    pair = sorted(phrases.values(), key=limit.count)[-2:]
    categories = Counter(context for _, context in entries(name))
    for category, context in entries(name):
        if category in phrases:
            yield f"{photograph_of(phrases[category])} {context}"
        if category == ANY or categories[context] > 1:
            yield f"{photograph_of(*pair)} {context}"


def test_prompts_fit_into_clips_tokens_even_letter_by_letter():
    # no CLIP tokenizer makes more tokens of a word than it has letters
    letters = TokenLimit(build_tokenizer())
    counts = [letters.count(prompt) for prompt in longest_prompts("contexts.yaml", "coco", letters)]
    assert len(counts) > 480
    assert max(counts) <= CLIP_TOKENS


@pytest.mark.parametrize("vocabulary", ["pascal", "sticker_coco"])
def test_places_fit_into_the_mini_generators_tokens(vocabulary):
    limit = TokenLimit.load(str(ROOT / "models/mini/diffusion"))
    counts = [limit.count(prompt) for prompt in longest_prompts("contexts_stickers.yaml", vocabulary, limit)]
    assert len(counts) == len(PLACES)
    assert max(counts) <= limit.most == 32
