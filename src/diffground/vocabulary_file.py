"""A vocabulary file: categories in label order, their words, which are seen, and which appear together.

categories:
  - dog                                # seen, its name is its word in prompts and the detector's name for it
  - name: pallet jack
    words: [pallet jack, pallet truck] # in prompts; several are used in turn
    detector: null                     # the detector's name for it; null: the detector does not know it
    status: unseen                     # seen (default), unseen or off
    colour: "#1f77b4"                  # in overlays; optional
pairs: all                             # which appear together in a prompt: all, none (default), or a list of pairs
templates: ["a photograph of {objects}"] # used in turn; optional
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from diffground.errors import UserError, in_one_line

MAX_CATEGORIES = 254
"""Labels are bytes: 0 is the background and 255 is ignored."""
TEMPLATE = "a photograph of {objects}"
"""The prompt template of paper section 4.1."""
STATUSES = ("seen", "unseen", "off")

_KEYS = ("categories", "pairs", "templates")
_CATEGORY_KEYS = ("name", "words", "detector", "status", "colour")
_MAX_NAME_BYTES = 60  # a tar's member has 100 for "train-000012.mask.NAME.png"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class Category:
    """One entry of `categories`."""

    name: str
    words: tuple[str, ...]
    """One or more; the first is the one that queries use where no prompt says otherwise."""
    detector: str | None
    status: str
    """One of STATUSES."""
    colour: str | None
    """ "#rrggbb"."""


@dataclass(frozen=True)
class VocabularyFile:
    """The content of a vocabulary file, checked."""

    categories: tuple[Category, ...]
    """In label order: the first has label 1."""
    pairs: tuple[tuple[str, str], ...]
    """Each in label order."""
    templates: tuple[str, ...]


def read_vocabulary_file(path: Path) -> VocabularyFile:
    """Read and check `path`.

    Raises: UserError, which names the file and the entry, for a missing file, one that is no YAML, unknown or missing
    keys, values of another kind, names or words that occur twice, and more than MAX_CATEGORIES categories in use.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such vocabulary file; `diffground new` writes one")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file ({in_one_line(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping with the key 'categories'")
    _check_keys(content, known=_KEYS, place=str(path))
    entries = content.get("categories")
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: categories must be a list of one or more categories")
    categories = tuple(_category(entry, place=f"{path}: category {i}") for i, entry in enumerate(entries, start=1))
    _check_unique([category.name for category in categories], what="categories", place=path)
    of_all = [word.casefold() for category in categories if category.status != "off" for word in category.words]
    _check_unique(of_all, what="words", place=path)
    num_used = sum(category.status != "off" for category in categories)
    if num_used > MAX_CATEGORIES:
        raise UserError(
            f"{path}: {num_used} categories are in use, at most {MAX_CATEGORIES} fit into label maps of bytes (0 is "
            f"the background, 255 is ignored); give others `status: off`"
        )
    return VocabularyFile(
        # without those that are off at the end of a long list, so that the labels of the others fit into a byte
        categories=_within_a_byte(categories),
        pairs=_pairs(content.get("pairs", "none"), [category.name for category in categories], place=path),
        templates=_templates(content.get("templates", [TEMPLATE]), place=path),
    )


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if repeated is not None:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: '{repeated}' is given twice")
        return super().construct_mapping(node, deep=deep)


def _category(entry: Any, *, place: str) -> Category:
    given = entry if isinstance(entry, dict) else {"name": entry}
    _check_keys(given, known=_CATEGORY_KEYS, place=place)
    name = _text(given.get("name"), place=f"{place}: name")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise UserError(
            f"{place}: name has {len(name.encode())} bytes, at most {_MAX_NAME_BYTES} fit; write the rest in words"
        )
    place = f"{place} ('{name}')"
    words = given.get("words", [name])
    words = [words] if isinstance(words, str) else words
    if not isinstance(words, list) or not words:
        raise UserError(f"{place}: words must be a list of one or more texts, got {words!r}")
    detector = given.get("detector", name)
    status = given.get("status", "seen")
    # YAML reads an unquoted `off` as false
    status = "off" if status is False else status
    if status not in STATUSES:
        raise UserError(f"{place}: status must be one of {', '.join(STATUSES)}, got {status!r}")
    colour = given.get("colour")
    if colour is not None and not (isinstance(colour, str) and _COLOUR.fullmatch(colour)):
        raise UserError(f'{place}: colour must be like "#1f77b4", in quotes, got {colour!r}')
    return Category(
        name=name,
        words=tuple(_text(word, place=f"{place}: words") for word in words),
        detector=None if detector is None else _text(detector, place=f"{place}: detector"),
        status=status,
        colour=colour,
    )


def _text(value: Any, *, place: str) -> str:
    """Raises: UserError for anything but a text that may be part of a prompt and of a file name."""
    if not isinstance(value, str):
        raise UserError(f"{place} must be text, got {value!r}; put it in quotes")
    text = " ".join(value.split())
    if not text or any(character in text for character in "/\\"):
        raise UserError(f"{place} must not be empty and have no slash, got {value!r}")
    return text


def _pairs(given: Any, names: Sequence[str], *, place: Path) -> tuple[tuple[str, str], ...]:
    if given in ("none", None):
        return ()
    if given == "all":
        return tuple(combinations(names, 2))
    if not isinstance(given, list):
        raise UserError(f"{place}: pairs must be all, none or a list of pairs of categories, got {given!r}")
    pairs = []
    for i, pair in enumerate(given, start=1):
        if not isinstance(pair, list) or len(pair) != 2 or pair[0] == pair[1]:
            raise UserError(f"{place}: pair {i} must be two different categories, got {pair!r}")
        unknown = [name for name in pair if name not in names]
        if unknown:
            raise UserError(f"{place}: pair {i} names '{unknown[0]}', which is not one of its categories")
        first, second = sorted(pair, key=names.index)
        pairs.append((first, second))
    _check_unique([" and ".join(pair) for pair in pairs], what="pairs", place=place)
    return tuple(pairs)


def _templates(given: Any, *, place: Path) -> tuple[str, ...]:
    if not isinstance(given, list) or not given:
        raise UserError(f"{place}: templates must be a list of one or more texts, got {given!r}")
    for template in given:
        if not isinstance(template, str) or template.count("{objects}") != 1:
            raise UserError(f"{place}: a template must contain {{objects}} once, got {template!r}")
    return tuple(given)


def _within_a_byte(categories: tuple[Category, ...]) -> tuple[Category, ...]:
    """All where they fit; else only those in use, which then have other labels."""
    return categories if len(categories) <= MAX_CATEGORIES else tuple(c for c in categories if c.status != "off")


def _check_keys(given: Mapping[Any, Any], *, known: Sequence[str], place: str) -> None:
    unknown = [key for key in given if key not in known]
    if unknown:
        raise UserError(f"{place}: unknown key '{unknown[0]}'; known: {', '.join(known)}")


def _check_unique(names: Sequence[str], *, what: str, place: Path) -> None:
    repeated = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if repeated is not None:
        raise UserError(f"{place}: {what} has '{repeated}' twice; name it once")
