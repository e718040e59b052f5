"""Prompts and words of a command line, checked without weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffground.contexts.words import phrases_in
from diffground.errors import UserError, in_one_line
from diffground.interface.results import MAX_WORDS
from diffground.prompts import check_words, words_in

_CLIP_TOKENS = 77


def read_prompt_file(path: Path) -> list[str]:
    """The prompts of a text file, one per line; blank lines and lines that start with # do not count.

    Raises: UserError for a file that is missing, not UTF-8, or has no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"--prompts {path}: cannot be read ({error.strerror or error}); give a text file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--prompts {path}: must be UTF-8 text ({error.reason} at byte {error.start})") from None
    prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        raise UserError(f"--prompts {path}: no prompt there; write one per line")
    return prompts


def gather_prompts(given: Sequence[str], file: Path | None) -> tuple[list[str], list[str]]:
    """The prompts of the command line, then those of the file, each once; and notes on what was left out.

    Raises: UserError for an empty prompt, none at all, and as read_prompt_file does.
    """
    if any(not prompt.strip() for prompt in given):
        raise UserError('the prompt is empty; write what the image shows, e.g. "a photograph of a dog"')
    prompts = [*given, *(read_prompt_file(file) if file else [])]
    if not prompts:
        raise UserError("there is no prompt; write one or more, or give --prompts FILE")
    unique = list(dict.fromkeys(prompts))
    num_repeated = len(prompts) - len(unique)
    return unique, [f"prompts that are named more than once: {num_repeated}; each is used once"] if num_repeated else []


def check_asked(words: Sequence[str]) -> None:
    """Raises: UserError for a word of -c that is empty or named twice, and for too many."""
    for i, word in enumerate(words):
        if not word.strip():
            raise UserError("-c must not be empty; write a word, e.g. -c dog")
        if word in words[:i]:
            raise UserError(f"words name '{word}' twice; name it once")
    if len(words) > MAX_WORDS:
        raise UserError(f"at most {MAX_WORDS} words fit into one mask, got {len(words)}; ask for fewer at a time")


def token_limit(checkpoint: str) -> int:
    """Tokens that the generator reads of a prompt, with start and end; of a hub id, those of CLIP."""
    try:
        path = Path(checkpoint) / "tokenizer" / "tokenizer_config.json"
        limit = json.loads(path.read_text(encoding="utf-8"))["model_max_length"]
    except (OSError, ValueError, KeyError, TypeError):
        return _CLIP_TOKENS
    return limit if isinstance(limit, int) else _CLIP_TOKENS


def check_length(prompt: str, *, limit: int, remedy: str = "shorten it") -> None:
    """Raises: UserError for a prompt that surely does not fit: a word has one token or more. The tokenizer, which comes
    with the weights, decides the other cases."""
    num = len(prompt.split())
    if num + 2 > limit:
        line = in_one_line(prompt)
        raise UserError(f"prompt must fit into {limit} tokens, got {num + 2} or more: '{line}'; {remedy}")


def words_of_prompts(
    prompts: Sequence[str],
    asked: Sequence[str],
    *,
    phrases: Mapping[str, str],
    has_inversions: bool,
) -> list[list[str]]:
    """The words to find in each prompt: those of `asked` that it contains, or without any those that `phrases` has.

    phrases: category -> its words, of the profile's vocabulary. With textual inversions the file decides how a prompt
    is read, so a single prompt is not checked here.
    Raises: UserError for a prompt without words, and for a word that no prompt contains.
    """
    check_asked(asked)
    if not asked:
        if has_inversions:
            raise UserError("with --word, say which words to find: -c WORDS, once for each")
        found = [[phrases[category] for category in phrases_in(prompt, phrases)] for prompt in prompts]
        for prompt, words in zip(prompts, found, strict=True):
            if not words:
                raise UserError(
                    f"the prompt '{in_one_line(prompt)}' names no word of the vocabulary; give -c/--category WORDS"
                )
    elif len(prompts) == 1:
        if not has_inversions:
            check_words(prompts[0], asked)
        found = [list(asked)]
    else:
        found = [words_in(prompt, asked) for prompt in prompts]
        for prompt, words in zip(prompts, found, strict=True):
            if not words:
                listed = ", ".join(f"'{word}'" for word in asked)
                raise UserError(
                    f"the prompt '{in_one_line(prompt)}' contains none of the words {listed}; change it or add -c"
                )
        unused = [word for word in asked if not any(word in words for words in found)]
        if unused:
            raise UserError(
                f"none of the {len(prompts)} prompts contains the words '{unused[0]}'; leave out -c {unused[0]}"
            )
    return found
