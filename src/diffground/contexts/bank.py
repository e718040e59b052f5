"""Banks of contexts: text that may follow the template's words for a category, "in tall grass" after "a zebra".

dog: [asleep on a doormat, in tall grass]
any: [in the fog]               # for every category, and for pairs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from diffground.atomic import write_atomically
from diffground.contexts.words import known_categories, named_categories
from diffground.errors import UserError, in_one_line
from diffground.prompts import PromptRecord
from diffground.vocabulary import Vocabulary, closest

ANY = "any"
"""The key of contexts for every category."""


@dataclass(frozen=True)
class ContextBank:
    """Contexts of the categories of one vocabulary."""

    contexts: Mapping[str, tuple[str, ...]]
    """Category or ANY -> contexts, each of which names no other category."""
    source: str
    """'scene' or 'llm': the source of a prompt that has one."""

    @property
    def num_contexts(self) -> int:
        return sum(len(entries) for entries in self.contexts.values())

    def options(self, record: PromptRecord) -> list[PromptRecord]:
        """The record with each context of its categories, and with those for any category."""
        lists = [self.contexts.get(category, ()) for category in sorted(record.categories)]
        own = [context for context in lists[0] if all(context in others for others in lists[1:])]
        return [
            PromptRecord(**{**vars(record), "prompt": f"{record.prompt} {context}", "source": self.source})
            for context in dict.fromkeys([*own, *self.contexts.get(ANY, ())])
        ]


def read_bank(path: Path, vocabulary: Vocabulary) -> ContextBank:
    """The contexts of the vocabulary's categories; those of other tables' categories are left out.

    Raises: UserError for a missing file, one that is no such mapping, an unknown category, and a context that names
    another category of the vocabulary: its pixels would have no label.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"prompts.contexts: no such file '{path}'; name a bank, a file of prompts, or llm:…") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {in_one_line(error, limit=None)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must map categories to lists of contexts, got {type(content).__name__}")
    contexts, known = {}, (ANY, *known_categories())
    for category, entries in content.items():
        if category not in known:
            raise UserError(f"{path}: '{category}' is no category; closest: {closest(str(category), known)}")
        if not isinstance(entries, list) or not all(isinstance(entry, str) and entry.strip() for entry in entries):
            raise UserError(f"{path}: '{category}' must have a list of texts, got {entries!r}")
        if category == ANY or category in vocabulary.categories:
            contexts[category] = tuple(" ".join(entry.split()) for entry in entries)
            _check_names(path, category, contexts[category], vocabulary)
    return ContextBank(contexts=contexts, source="scene")


def write_bank(path: Path, bank: ContextBank | None) -> None:
    """Write a file for read_bank, atomically; None is a bank without contexts."""
    content = {category: list(entries) for category, entries in bank.contexts.items()} if bank else {}
    write_atomically(path, yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=120))


def _check_names(path: Path, category: str, entries: Sequence[str], vocabulary: Vocabulary) -> None:
    for entry in entries:
        others = [other for other in named_categories(entry, vocabulary.categories) if other != category]
        if others:
            raise UserError(f"{path}: '{entry}' of '{category}' names '{others[0]}', which gets no label; reword it")
