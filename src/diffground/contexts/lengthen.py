"""Template prompts -> prompts with a context (the "complicated prompts" of the paper's Model E)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from transformers import CLIPTokenizer

from diffground.errors import UserError, in_one_line
from diffground.prompts import PromptRecord

_STREAM = 1_000
"""Differs from the streams of the prompts."""


class LongerPrompts(Protocol):
    """`options`: the longer records that may replace a record; empty: it is kept."""

    def options(self, record: PromptRecord) -> list[PromptRecord]: ...


@dataclass(frozen=True)
class TokenLimit:
    """The number of tokens of a prompt, and the maximum of the generator's text encoder."""

    tokenizer: Any

    @classmethod
    def load(cls, checkpoint: str) -> TokenLimit:
        """`checkpoint`: that of the generator. Raises: UserError when it has no CLIP tokenizer."""
        try:
            return cls(CLIPTokenizer.from_pretrained(checkpoint, subfolder="tokenizer"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = in_one_line(error)
            raise UserError(f"generator.checkpoint '{checkpoint}' has no readable tokenizer: {reason}") from None

    @property
    def most(self) -> int:
        return int(self.tokenizer.model_max_length)

    def count(self, prompt: str) -> int:
        return len(self.tokenizer(prompt, verbose=False).input_ids)


def lengthen(
    records: Sequence[PromptRecord], longer: LongerPrompts, *, frac: float, seed: int, limit: TokenLimit
) -> list[PromptRecord]:
    """`records` with longer prompts for the share `frac` of them (0..1), chosen at random; ids, seeds and sets of
    categories stay. The options of a set of categories take turns, in random order. Records without any stay.

    Raises: UserError for a prompt of more tokens than the generator reads.
    """
    rng = np.random.default_rng([seed, _STREAM])
    chosen = {int(i) for i in rng.permutation(len(records))[: round(frac * len(records))]}
    orders: dict[frozenset[str], list[int]] = {}
    turns: dict[frozenset[str], int] = {}
    result = []
    for i, record in enumerate(records):
        options = longer.options(record) if i in chosen else []
        if options:
            named = frozenset(record.categories)
            order = orders.setdefault(named, rng.permutation(len(options)).tolist())
            turn = turns[named] = turns.get(named, -1) + 1
            record = options[order[turn % len(order)]]
            if limit.count(record.prompt) > limit.most:
                raise UserError(
                    f"prompts.contexts: '{record.prompt}' has {limit.count(record.prompt)} tokens, the generator reads "
                    f"{limit.most}; shorten it"
                )
        result.append(record)
    return result
