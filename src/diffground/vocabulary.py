"""Categories, their words, which are unseen, and which appear together."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Literal, get_args

import yaml

from diffground.errors import UserError

PASCAL_CATEGORIES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC order: category i has VOC label i + 1."""

PHRASES = {
    "diningtable": "dining table",
    "pottedplant": "potted plant",
    "tvmonitor": "tv monitor",
}
"""Words of a category in a prompt, where they are not its name."""

COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""COCO's label of a category, where it is not its name."""

TableName = Literal["pascal", "coco", "sticker_coco"]
TABLES: tuple[str, ...] = get_args(TableName)
"""Names of the tables: PASCAL's 20 categories, the 79 of COCO-sim (supplementary B.1), and the 64 of these that the
mini world has art of."""

STICKER_TABLES = ("pascal", "sticker_coco")
"""Tables whose categories the mini world can show, each of them."""

PAPER_NUM_PAIRS = {"pascal": 142, "coco": 1559}
"""Co-appearing pairs of a table in the paper (supplementary B.1), which does not say of which COCO images."""

_SECTIONS = {"coco": "COCO-sim", "sticker_coco": "sticker-COCO-sim"}
"""Table -> its section of tables/category_splits.yaml."""


def table_categories(name: str) -> tuple[str, ...]:
    """The categories of a table, in label order. Raises: UserError for a name that is not one of TABLES."""
    if name == "pascal":
        return PASCAL_CATEGORIES
    if name not in TABLES:
        raise UserError(f"vocabulary.name must be one of {', '.join(TABLES)}, got '{name}'")
    splits = yaml.safe_load(files("diffground").joinpath("tables/category_splits.yaml").read_text(encoding="utf-8"))
    return tuple(splits[_SECTIONS[name]]["categories"])


_VOWELS = re.compile(r"[aeioué8]|1[18]\b|h(?:eir|onest|onou?r|our(?!i))|x-?ray", re.IGNORECASE)
"""Beginnings with a vowel sound, as they are written; but for:"""
_CONSONANTS = re.compile(
    r"e(?:u|we)|on(?:e|ce)\b|ouija"
    r"|u(?:\b|biq|fo\b|ga|k|ni(?!dea|dent|ll|m(?!od)|n|r|ssu)|r(?:a[ln]|[eio])|s[aeu]|sb\b|t[eio]|v)",
    re.IGNORECASE,
)
"""Beginnings with the sound of "you" or "one"; "unidentified" and "unimportant" are un- and a vowel."""


def with_article(phrase: str) -> str:
    """ "dog" -> "a dog", "aeroplane" -> "an aeroplane", "unicorn" -> "a unicorn", "hour glass" -> "an hour glass"."""
    vowel_sound = _VOWELS.match(phrase) and not _CONSONANTS.match(phrase)
    return f"{'an' if vowel_sound else 'a'} {phrase}"


def photograph_of(*phrases: str) -> str:
    """The prompt template of paper section 4.1: "a photograph of a dog and a potted plant"."""
    return "a photograph of " + " and ".join(with_article(phrase) for phrase in phrases)


@dataclass(frozen=True)
class Vocabulary:
    """One table of categories and one split of it. Categories neither in `seen` nor in `unseen` are not used."""

    name: str
    categories: tuple[str, ...]
    """In label order: category i has label i + 1, 0 is the background."""
    phrases: Mapping[str, str]
    """Category -> its words in a prompt ("pottedplant" -> "potted plant"); every category is a key."""
    seen: tuple[str, ...]
    """Categories with labels, in label order."""
    unseen: tuple[str, ...]
    """Categories without labels, in label order."""
    pairs: tuple[tuple[str, str], ...]
    """Pairs of used categories that appear together in a real image, each in label order."""
    detector_names: Mapping[str, str]
    """Category -> the label that COCO detectors have for it ("motorbike" -> "motorcycle"); every category is a key."""

    def index(self, category: str) -> int:
        """Place in `categories`, from 0. Raises: UserError for an unknown category; it names the closest one."""
        if category not in self.categories:
            raise UserError(f"vocabulary '{self.name}': {_unknown(category, self.categories)}")
        return self.categories.index(category)

    def with_pairs(self, pairs: Iterable[tuple[str, str]]) -> Vocabulary:
        """The same with other co-appearing pairs; those with a category that is not used are left out."""
        used = {*self.seen, *self.unseen}
        return replace(self, pairs=tuple((a, b) for a, b in pairs if a in used and b in used))


def load_vocabulary(name: str, *, unseen: Sequence[str], seen: Sequence[str] = ()) -> Vocabulary:
    """A table of TABLES with a split. Without `seen`, all that is not unseen is seen. Only 'pascal' has pairs.

    Raises: UserError for an unknown table or category, one named twice, one both seen and unseen, and no seen one left.
    """
    categories = table_categories(name)
    for field, given in (("unseen", unseen), ("seen", seen)):
        for i, category in enumerate(given):
            if category not in categories:
                raise UserError(f"vocabulary.{field}: {_unknown(category, categories)}")
            if category in given[:i]:
                raise UserError(f"vocabulary.{field}: '{category}' is named twice; name it once")
    both = [category for category in seen if category in unseen]
    if both:
        raise UserError(f"vocabulary: '{', '.join(both)}' is both seen and unseen; take it out of one of the lists")
    kept_seen = tuple(c for c in categories if (c in seen if seen else c not in unseen))
    if not kept_seen:
        raise UserError(f"vocabulary.unseen names all {len(unseen)} categories; at least one must stay seen")
    return Vocabulary(
        name=name,
        categories=categories,
        phrases={c: PHRASES.get(c, c) for c in categories},
        seen=kept_seen,
        unseen=tuple(c for c in categories if c in unseen),
        pairs=(),
        detector_names={c: COCO_NAMES.get(c, c) for c in categories},
    ).with_pairs(_read_pascal_pairs() if name == "pascal" else ())


def _read_pascal_pairs() -> list[tuple[str, str]]:
    """The 142 pairs that share an image in VOC 2012 train_aug and val (12,031 images)."""
    table = files("diffground").joinpath("tables/pascal_coappearing_pairs.csv").read_text()
    return [(row["category_a"], row["category_b"]) for row in csv.DictReader(table.splitlines())]


def _unknown(category: str, known: Sequence[str]) -> str:
    return (
        f"'{category}' is not one of the {len(known)} categories; closest: {closest(category, known)}. "
        f"Known: {', '.join(known)}"
    )


def closest(name: str, known: Sequence[str]) -> str:
    """The entry of `known` that is most like `name`; 'none' where none is."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), "none")
