"""Words that the page offers for a prompt, and those that a request asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from diffground.contexts.words import phrases_in
from diffground.errors import UserError
from diffground.interface.words import check_asked, check_length
from diffground.prompts import check_words

MAX_WORDS = 10
"""Of one request: each has a map of probabilities of the image's size."""
_NO_OBJECTS = """
a an and are as at background be behind beside by close day down for from front having her his image
in inside into is it its large near next of off on one or outside over photo photograph picture
rendering several sitting small some standing that the their there these they this three to two
under up view wearing which while with without
"""
"""Words of prompts that name no object; they are not offered."""


def offered_words(prompt: str, phrases: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """All words that are offered, and those of them that are chosen to begin with: the words of the vocabulary.

    phrases: category -> its words, of the profile's vocabulary.
    """
    known = [phrases[category] for category in phrases_in(prompt, phrases)][:MAX_WORDS]
    no_objects = _NO_OBJECTS.split()
    taken = " ".join(known).lower().split()
    others = [
        word
        for word in re.findall(r"[^\W\d_][\w'-]*", prompt)
        if len(word) > 2 and word.lower() not in no_objects and word.lower() not in taken
    ]
    return list(dict.fromkeys([*known, *others]))[: 2 * MAX_WORDS], known


def typed_words(text: str) -> list[str]:
    """The words of a text field, with commas between them."""
    return [word.strip() for word in text.split(",") if word.strip()]


def check_request(prompt: str, words: Sequence[str], *, token_limit: int) -> None:
    """Raises: UserError for a prompt that is empty or long, and for words that are none, too many or not in it."""
    if not prompt.strip():
        raise UserError('the prompt is empty; write what the image shows, e.g. "a photograph of a dog"')
    if not words:
        raise UserError("choose at least one word of the prompt, or write one under 'Other words'")
    if len(words) > MAX_WORDS:
        raise UserError(f"at most {MAX_WORDS} words at a time, got {len(words)}; ask for fewer")
    check_asked(words)
    check_words(prompt, words)
    check_length(prompt, limit=token_limit)
