"""Prompt records: what to generate, for which categories, from which seed; and where a phrase is in a prompt."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from diffground.atomic import write_atomically
from diffground.errors import UserError, in_one_line
from diffground.vocabulary import Vocabulary, photograph_of, whole_words

GROUPS = ("one_seen", "one_unseen", "two_seen", "two_seen_unseen", "two_unseen")
"""The groups of Protocol I."""

_SETS = ("train", "test", "synthesis")
_SEEDS_PER_SET = 10_000_000
_LIKENESS = 0.7
"""Of two texts, 0..1, from which one is offered for the other: 'dog' and 'dogs' have 0.86."""
_KINDS: dict[str, type] = {"categories": tuple, "seed": int}


@dataclass(frozen=True)
class PromptRecord:
    """One image to be."""

    id: str
    """ "train-000012"; the sample's key in the shards."""
    prompt: str
    categories: tuple[str, ...]
    """In the order in which the prompt names them."""
    group: str
    """One of GROUPS."""
    seed: int
    """Seed of the sample's noise."""
    source: str
    """How the prompt came about: 'template'; in the synthesis set also 'scene' (with a context of a bank), 'llm' (with
    one that a language model wrote) or 'file' (written by hand)."""

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "categories": list(self.categories)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PromptRecord:
        """The inverse of to_json. Raises: KeyError, TypeError or ValueError when `value` is not such a record."""
        record = cls(**{**value, "categories": tuple(value["categories"])})
        for name, content in vars(record).items():
            kind = _KINDS.get(name, str)
            if not isinstance(content, kind):
                raise TypeError(f"'{name}' must be {kind.__name__}")
        if record.group not in GROUPS:
            raise ValueError(f"group must be one of {', '.join(GROUPS)}, got '{record.group}'")
        return record


def write_prompts(path: Path, records: Iterable[PromptRecord]) -> None:
    """One JSON object a line, whole or not at all."""
    write_atomically(path, "".join(json.dumps(record.to_json(), ensure_ascii=False) + "\n" for record in records))


class PromptFile(Sequence[PromptRecord]):
    """What write_prompts wrote, each record read when it is asked for: memory does not grow with the file's length.

    The file must stay as it is meanwhile. A slice is a list.
    """

    def __init__(self, path: Path) -> None:
        """Reads all of it once. Raises: UserError for a missing file, and with its number for a bad line."""
        if not path.is_file():
            raise UserError(f"{path}: no such prompt file; run `dvc repro sample_prompts`")
        self._path, self._starts = path, array("Q", [0])
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    _parse(line)
                except (KeyError, TypeError, ValueError) as error:
                    raise UserError(
                        f"{path}, line {number}: not a prompt record ({error}); run `dvc repro sample_prompts`"
                    ) from None
                self._starts.append(self._starts[-1] + len(line))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> PromptRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[PromptRecord]: ...
    def __getitem__(self, index: int | slice) -> PromptRecord | list[PromptRecord]:
        if isinstance(index, slice):
            return list(self._read(range(len(self))[index]))
        return next(self._read([range(len(self))[index]]))

    def __iter__(self) -> Iterator[PromptRecord]:
        return self._read(range(len(self)))

    def _read(self, lines: Iterable[int]) -> Iterator[PromptRecord]:
        with self._path.open("rb") as file:
            for line in lines:
                file.seek(self._starts[line])
                yield _parse(file.read(self._starts[line + 1] - self._starts[line]))


def _parse(line: bytes) -> PromptRecord:
    return PromptRecord.from_json(json.loads(line))


def read_prompts(path: Path) -> list[PromptRecord]:
    """The inverse of write_prompts. Raises: UserError as PromptFile does."""
    return list(PromptFile(path))


def prompts_digest(records: Iterable[PromptRecord]) -> str:
    """SHA-256 over all that the records say, in order."""
    digest = hashlib.sha256()
    for i, record in enumerate(records):
        digest.update(f"{chr(10) if i else ''}{json.dumps(record.to_json(), sort_keys=True)}".encode())
    return digest.hexdigest()


def group_of(categories: Sequence[str], vocabulary: Vocabulary) -> str:
    """The group of Protocol I. Raises: UserError for other than one or two used categories."""
    for category in categories:
        vocabulary.index(category)
        if category not in vocabulary.seen and category not in vocabulary.unseen:
            raise UserError(f"vocabulary: '{category}' is neither seen nor unseen; add it to one of the lists")
    num_unseen = sum(category in vocabulary.unseen for category in categories)
    groups = {1: ("one_seen", "one_unseen"), 2: ("two_seen", "two_seen_unseen", "two_unseen")}
    if len(categories) not in groups:
        raise UserError(f"a prompt of Protocol I names 1 or 2 categories, got {len(categories)}")
    return groups[len(categories)][num_unseen]


def sample_training_prompts(vocabulary: Vocabulary, *, num_one: int, num_two: int, seed: int) -> list[PromptRecord]:
    """Prompts with one seen category and with a co-appearing pair of seen ones, shuffled.

    Categories and pairs take turns, so that their numbers differ by one at most. Raises: UserError for negative numbers
    and for pairs wanted where no two seen categories appear together.
    """
    _check_counts(num_train_one=num_one, num_train_two=num_two)
    rng = _rng(seed, "train")
    pairs = [pair for pair in vocabulary.pairs if set(pair) <= set(vocabulary.seen)]
    if num_two and not pairs:
        raise UserError(f"prompts.num_train_two is {num_two}, but no two seen categories appear together; set it to 0")
    singles = [(category,) for category in vocabulary.seen]
    choices = _take_turns(singles, num_one, rng) + _take_turns(pairs, num_two, rng)
    shuffled = [choices[i] for i in rng.permutation(len(choices))]
    return _records("train", shuffled, vocabulary, rng, seed)


def sample_test_prompts(
    vocabulary: Vocabulary, *, per_category: int, per_pair: int, min_per_group: int = 0, seed: int
) -> list[PromptRecord]:
    """Protocol I: so many prompts per category and per co-appearing pair, and more per each of a group, equally, where
    the group would have fewer than `min_per_group`. Raises: UserError for negative numbers.
    """
    _check_counts(test_per_category=per_category, test_per_pair=per_pair, test_min_per_group=min_per_group)
    return _balanced("test", vocabulary, per_category, per_pair, seed, min_per_group=min_per_group)


def sample_synthesis_prompts(
    vocabulary: Vocabulary, *, per_category: int, per_pair: int, seed: int
) -> list[PromptRecord]:
    """The synthetic segmentation set, as sample_test_prompts."""
    _check_counts(synthesis_per_category=per_category, synthesis_per_pair=per_pair)
    return _balanced("synthesis", vocabulary, per_category, per_pair, seed)


def token_spans(tokenizer: Any, prompt: str, phrases: Sequence[str]) -> list[list[int]]:
    """For each phrase the positions of its tokens in the tokenized `prompt`, start token counted, rising.

    Every occurrence counts that is not part of another of these phrases: with "dog" and "hot dog", the "dog" in
    "hot dog" does not count; with "dog" only, it does. Empty for a phrase that is not in the prompt.
    `tokenizer`: a transformers tokenizer that splits at spaces. Raises: UserError when the prompt is cut off, at the
    tokenizer's maximal length, before the end of a phrase.
    """
    places = zip(phrases, _places(prompt, phrases), strict=True)
    return [
        [position for place in own for position in _positions(tokenizer, prompt, phrase, place)]
        for phrase, own in places
    ]


def check_words(prompt: str, words: Sequence[str], *, others: Sequence[str] = ()) -> None:
    """Raises: UserError for one of `words` that token_spans does not find in `prompt` among them and `others`."""
    for word, places in zip(words, _places(prompt, [*words, *others]), strict=False):
        if not places:
            near = _closest_words(prompt, word)
            advice = f"; did you mean '{near}'?" if near else "; write them as in the prompt"
            raise UserError(f"the prompt '{in_one_line(prompt)}' does not contain the words '{word}'{advice}")


def words_in(prompt: str, words: Sequence[str]) -> list[str]:
    """Those of `words` that check_words finds in `prompt`, in their own order."""
    return [word for word, places in zip(words, _places(prompt, words), strict=True) if places]


def _closest_words(prompt: str, phrase: str) -> str | None:
    """What the prompt says that is most like `phrase`, of one word more or less: "dogs" for "dog"."""
    words, num = re.findall(r"\w[\w'-]*", prompt), len(phrase.split())
    said = {" ".join(words[i : i + n]): None for n in (num, num - 1, num + 1) if n for i in range(len(words) - n + 1)}
    lower = {candidate.lower(): candidate for candidate in said if candidate.lower() != phrase.lower()}
    near = difflib.get_close_matches(phrase.lower(), lower, n=1, cutoff=_LIKENESS)
    return lower[near[0]] if near else None


def _places(prompt: str, phrases: Sequence[str]) -> list[list[tuple[int, int]]]:
    """For each phrase its places in the prompt: the first character, and the one after the last."""
    occurrences = [_occurrences(prompt, phrase) for phrase in phrases]
    return [[here for here in own if not _is_part_of_another(here, occurrences)] for own in occurrences]


def _occurrences(prompt: str, phrase: str) -> list[tuple[int, int]]:
    """Where whole words of the prompt are `phrase`: first character, and the one after the last."""
    if not phrase:
        return []
    return [match.span() for match in whole_words(phrase).finditer(prompt)]


def _is_part_of_another(here: tuple[int, int], occurrences: Sequence[Sequence[tuple[int, int]]]) -> bool:
    return any(
        start <= here[0] and here[1] <= end and (start, end) != here for some in occurrences for start, end in some
    )


def _positions(tokenizer: Any, prompt: str, phrase: str, occurrence: tuple[int, int]) -> list[int]:
    """The tokens of characters `occurrence` of the prompt. Raises: as token_spans."""
    whole, before, through = (
        tokenizer(text, add_special_tokens=False).input_ids
        for text in (prompt, prompt[: occurrence[0]], prompt[: occurrence[1]])
    )
    if whole[: len(through)] != through or through[: len(before)] != before:
        raise ValueError(f"{type(tokenizer).__name__} joins words into tokens: no span for '{phrase}' in '{prompt}'")
    framed = tokenizer(prompt).input_ids
    num_prepended = next(i for i in range(len(framed)) if framed[i : i + len(whole)] == whole)
    first, end = num_prepended + len(before), num_prepended + len(through)
    limit = tokenizer.model_max_length
    if end > limit - 1:  # the end token takes the last position
        raise UserError(
            f"the prompt '{in_one_line(prompt)}' is cut at {limit} tokens, before the end of '{phrase}'; shorten it"
        )
    return list(range(first, end))


def _records(
    name: str, choices: Sequence[tuple[str, ...]], vocabulary: Vocabulary, rng: np.random.Generator, seed: int
) -> list[PromptRecord]:
    """One record for each choice of categories, which it names in random order, each by its words in turn."""
    if len(choices) > _SEEDS_PER_SET:
        raise UserError(f"prompts: at most {_SEEDS_PER_SET} {name} prompts, got {len(choices)}; ask for fewer")
    records, num_named, templates = list[PromptRecord](), Counter[str](), vocabulary.templates
    for i, choice in enumerate(choices):
        categories = tuple(choice[k] for k in rng.permutation(len(choice)))
        words = [vocabulary.words[category] for category in categories]
        phrases = [of[num_named[category] % len(of)] for category, of in zip(categories, words, strict=True)]
        num_named.update(categories)
        record = PromptRecord(
            id=f"{name}-{i:06d}",
            prompt=photograph_of(*phrases, template=templates[i % len(templates)]),
            categories=categories,
            group=group_of(categories, vocabulary),
            seed=_first_seed(seed, name) + i,
            source="template",
        )
        records.append(record)
    return records


def _first_seed(seed: int, name: str) -> int:
    """Every (seed, set) has a range of sampling seeds of its own."""
    return (len(_SETS) * seed + _SETS.index(name)) * _SEEDS_PER_SET


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, _SETS.index(name)])


def _balanced(
    name: str, vocabulary: Vocabulary, per_category: int, per_pair: int, seed: int, *, min_per_group: int = 0
) -> list[PromptRecord]:
    used = [c for c in vocabulary.categories if c in vocabulary.seen or c in vocabulary.unseen]
    subjects: list[tuple[str, ...]] = [*((category,) for category in used), *vocabulary.pairs]
    sizes = Counter(group_of(subject, vocabulary) for subject in subjects)
    choices = []
    for subject in subjects:
        asked = per_category if len(subject) == 1 else per_pair
        needed = -(-min_per_group // sizes[group_of(subject, vocabulary)])
        choices += [subject] * max(asked, needed)
    return _records(name, choices, vocabulary, _rng(seed, name), seed)


def _take_turns(items: Sequence[Any], num: int, rng: np.random.Generator) -> list[Any]:
    """`num` of `items`: all of them in one random order, again and again."""
    order = rng.permutation(len(items))
    return [items[order[i % len(items)]] for i in range(num)]


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 0:
            raise UserError(f"prompts.{name} must not be negative, got {value}")
