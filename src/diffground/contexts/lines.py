"""Prompts written by hand: a text file with one complete prompt per line. Empty lines and comments (#) are skipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffground.contexts.words import named_categories, phrases_in
from diffground.errors import UserError
from diffground.prompts import PromptRecord
from diffground.vocabulary import Vocabulary


@dataclass(frozen=True)
class PromptLine:
    """`categories` in the order in which `prompt` names them."""

    prompt: str
    categories: tuple[str, ...]


@dataclass(frozen=True)
class PromptLines:
    """Prompts by the set of categories that they name."""

    by_categories: Mapping[frozenset[str], tuple[PromptLine, ...]]

    def options(self, record: PromptRecord) -> list[PromptRecord]:
        """The record with each prompt that names its categories and no other."""
        return [
            PromptRecord(**{**vars(record), "prompt": line.prompt, "categories": line.categories, "source": "file"})
            for line in self.by_categories.get(frozenset(record.categories), ())
        ]

    def num_unused(self, records: Iterable[PromptRecord]) -> int:
        """Lines whose set of categories no record has."""
        wanted = {frozenset(record.categories) for record in records}
        return sum(len(lines) for categories, lines in self.by_categories.items() if categories not in wanted)


def read_lines(path: Path, vocabulary: Vocabulary) -> PromptLines:
    """The file's prompts. A category is named by its words in the template, "potted plant" for pottedplant.

    Raises: UserError for a missing or empty file, and with file and number for a line that names no category, more than
    two, or a further one in other words ("people"), whose pixels would have no label.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"prompts.contexts: no such file '{path}'; name a bank, a file of prompts, or llm:…") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {error}") from None
    found: dict[frozenset[str], list[PromptLine]] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        prompt = " ".join(raw.split())
        if prompt and not prompt.startswith("#"):
            line = _parse(prompt, vocabulary, where=f"{path}, line {number}")
            found.setdefault(frozenset(line.categories), []).append(line)
    if not found:
        raise UserError(f"{path}: holds no prompt; write one per line")
    return PromptLines(by_categories={categories: tuple(lines) for categories, lines in found.items()})


def _parse(prompt: str, vocabulary: Vocabulary, *, where: str) -> PromptLine:
    categories = tuple(phrases_in(prompt, vocabulary.phrases))
    if not 1 <= len(categories) <= 2:
        what = ", ".join(f"'{category}'" for category in categories) or "none"
        raise UserError(f"{where}: must name one or two categories of '{vocabulary.name}', got {what}: '{prompt}'")
    others = [category for category in named_categories(prompt, vocabulary.categories) if category not in categories]
    if others:
        raise UserError(
            f"{where}: names '{others[0]}' by other words than '{vocabulary.phrases[others[0]]}', so that it gets no "
            f"label; reword it: '{prompt}'"
        )
    return PromptLine(prompt=prompt, categories=categories)
