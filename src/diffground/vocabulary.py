"""Categories, their words, which are unseen, and which appear together."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from diffground.errors import UserError
from diffground.vocabulary_file import TEMPLATE, read_vocabulary_file

BUILT_IN = files("diffground").joinpath("vocabularies")
"""The folder of the built-in vocabulary files: 'pascal' (20 categories), 'coco' (79, COCO-sim of supplementary B.1) and
'sticker_coco' (the 64 of these that the mini world has art of)."""

PAPER_NUM_PAIRS = {"pascal": 142, "coco": 1559}
"""Co-appearing pairs of a vocabulary in the paper (supplementary B.1), which does not say of which COCO images."""


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


def photograph_of(*phrases: str, template: str = TEMPLATE) -> str:
    """The prompt template of paper section 4.1: "a photograph of a dog and a potted plant"; or another one."""
    return template.replace("{objects}", " and ".join(with_article(phrase) for phrase in phrases))


@dataclass(frozen=True)
class Vocabulary:
    """Categories and one split of them. Categories neither in `seen` nor in `unseen` are not used."""

    name: str
    """The file's name without its suffix."""
    categories: tuple[str, ...]
    """In label order: category i has label i + 1, 0 is the background."""
    words: Mapping[str, tuple[str, ...]]
    """Category -> its words in prompts, one or more that are used in turn; every category is a key."""
    seen: tuple[str, ...]
    """Categories with labels, in label order."""
    unseen: tuple[str, ...]
    """Categories without labels, in label order."""
    pairs: tuple[tuple[str, str], ...]
    """Pairs of used categories that appear together, each in label order."""
    detector_names: Mapping[str, str | None]
    """Category -> the label that the detector has for it ("motorbike" -> "motorcycle"), None if it has none; every
    category is a key."""
    templates: tuple[str, ...] = (TEMPLATE,)
    """Prompts with "{objects}" in place of "a dog and a cat", used in turn."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """Category -> "#rrggbb", of those that have one."""

    @property
    def phrases(self) -> dict[str, str]:
        """Category -> its first words in a prompt ("pottedplant" -> "potted plant"); every category is a key."""
        return {category: words[0] for category, words in self.words.items()}

    @property
    def used(self) -> tuple[str, ...]:
        """The seen and unseen categories, in label order."""
        return tuple(c for c in self.categories if c in self.seen or c in self.unseen)

    def index(self, category: str) -> int:
        """Place in `categories`, from 0. Raises: UserError for an unknown category; it names the closest one."""
        if category not in self.categories:
            raise UserError(f"vocabulary '{self.name}': {_unknown(category, self.categories)}")
        return self.categories.index(category)

    def words_in(self, prompt: str, categories: Sequence[str]) -> list[str]:
        """By which of its words `prompt` names each category: the longest that it contains, or else the first."""
        return [self._word_in(prompt, self.words[category]) for category in categories]

    def with_pairs(self, pairs: Iterable[tuple[str, str]]) -> Vocabulary:
        """The same with other co-appearing pairs; those with a category that is not used are left out."""
        used = {*self.seen, *self.unseen}
        return replace(self, pairs=tuple((a, b) for a, b in pairs if a in used and b in used))

    @staticmethod
    def _word_in(prompt: str, words: Sequence[str]) -> str:
        if len(words) == 1:
            return words[0]
        longest_first = sorted(words, key=len, reverse=True)
        return next((word for word in longest_first if whole_words(word).search(prompt)), words[0])


def whole_words(phrase: str) -> re.Pattern[str]:
    """Finds `phrase` in a text, in any case, where it is not part of longer words."""
    return re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)", re.IGNORECASE)


def load_vocabulary(file: str | Path, *, unseen: Sequence[str] = (), seen: Sequence[str] = ()) -> Vocabulary:
    """A vocabulary file with its split, or with another one.

    Args:
        file: path of a file as diffground.vocabulary_file describes, or the name of a built-in one: 'pascal', 'coco' or
            'sticker_coco', whose categories are all seen.
        unseen, seen: another split than the file's; without `seen`, all of its seen and unseen categories that are not
            in `unseen` are seen.
    Raises: UserError as read_vocabulary_file does, and for an unknown category, one named twice, one both seen and
        unseen, and no seen one left.
    """
    path = vocabulary_path(file)
    content = read_vocabulary_file(path)
    categories = tuple(category.name for category in content.categories)
    for name, given in (("unseen", unseen), ("seen", seen)):
        for i, category in enumerate(given):
            if category not in categories:
                raise UserError(f"vocabulary.{name}: {_unknown(category, categories)}")
            if category in given[:i]:
                raise UserError(f"vocabulary.{name}: '{category}' is named twice; name it once")
    both = [category for category in seen if category in unseen]
    if both:
        raise UserError(f"vocabulary: '{', '.join(both)}' is both seen and unseen; take it out of one of the lists")
    status = {category.name: category.status for category in content.categories}
    if unseen or seen:
        in_use = [name for name in categories if status[name] != "off"]
        kept_seen = tuple(c for c in (categories if seen else in_use) if (c in seen if seen else c not in unseen))
        kept_unseen = tuple(c for c in categories if c in unseen)
    else:
        kept_seen, kept_unseen = (tuple(c for c in categories if status[c] == kind) for kind in ("seen", "unseen"))
    if not kept_seen:
        raise UserError(
            f"{path}: all {len(kept_unseen)} categories in use are unseen; at least one must be seen: the detector "
            f"labels the training images"
        )
    return Vocabulary(
        name=path.stem,
        categories=categories,
        words={category.name: category.words for category in content.categories},
        seen=kept_seen,
        unseen=kept_unseen,
        pairs=(),
        detector_names={category.name: category.detector for category in content.categories},
        templates=content.templates,
        colours={category.name: category.colour for category in content.categories if category.colour},
    ).with_pairs(content.pairs)


def vocabulary_path(file: str | Path) -> Path:
    """The path of a vocabulary file; a built-in one, given by name or path, is the one that this package has.

    Raises: UserError for an unknown name.
    """
    path = Path(file)
    known = sorted(entry.name.removesuffix(".yaml") for entry in BUILT_IN.iterdir())
    if path.stem in known and is_built_in(path):
        return Path(str(BUILT_IN.joinpath(f"{path.stem}.yaml")))
    if path.suffix != ".yaml":
        near = closest(str(file), known)
        raise UserError(
            f"vocabulary '{file}': must be a .yaml file, or one of {', '.join(known)}"
            + (f"; did you mean '{near}'?" if near != "none" else "")
        )
    return path


def is_built_in(file: str | Path) -> bool:
    """Whether `file` is one of the built-in vocabulary files: the paper has numbers for their categories."""
    path = Path(file)
    by_name = path.parent == Path() and not path.suffix and BUILT_IN.joinpath(f"{path.name}.yaml").is_file()
    return by_name or path.parts[-3:-1] == ("diffground", "vocabularies")


def _unknown(category: str, known: Sequence[str]) -> str:
    return (
        f"'{category}' is not one of the {len(known)} categories; closest: {closest(category, known)}. "
        f"Known: {', '.join(known)}"
    )


def closest(name: str, known: Sequence[str]) -> str:
    """The entry of `known` that is most like `name`; 'none' where none is."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), "none")
