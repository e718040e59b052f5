"""Apply `prompts.contexts` in a stage: records in, longer records out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffground.contexts.bank import ContextBank, read_bank
from diffground.contexts.lengthen import LongerPrompts, TokenLimit, lengthen
from diffground.contexts.lines import read_lines
from diffground.contexts.llm import LanguageModel, write_contexts
from diffground.prompts import PromptRecord
from diffground.vocabulary import Vocabulary

_LLM_PREFIX = "llm:"
_BANK_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class LongerSet:
    """`records`; the `bank` that was used, None for whole prompts of a file; `metrics`, numbers by name."""

    records: list[PromptRecord]
    bank: ContextBank | None
    metrics: dict[str, Any]


def apply_contexts(
    records: Sequence[PromptRecord],
    vocabulary: Vocabulary,
    *,
    contexts: str,
    frac: float,
    seed: int,
    generator: str,
    device: torch.device,
) -> LongerSet:
    """`records` with the contexts of `contexts`: a bank (.yaml), a file of prompts, or 'llm:<folder or hub id>'.

    `frac` and `seed` as in lengthen; `generator`: checkpoint whose tokenizer limits a prompt; `device`: where the
    language model computes. Raises: UserError as read_bank, read_lines, LanguageModel and lengthen do.
    """
    limit = TokenLimit.load(generator)
    metrics: dict[str, Any] = {}
    longer: LongerPrompts
    if contexts.startswith(_LLM_PREFIX):
        model = LanguageModel.load(contexts.removeprefix(_LLM_PREFIX), device=device)
        written = write_contexts(model, vocabulary, seed=seed, limit=limit)
        longer = written.bank
        metrics = {"num_contexts": written.bank.num_contexts, "num_dropped_answers": written.num_dropped}
    elif Path(contexts).suffix in _BANK_SUFFIXES:
        longer = read_bank(Path(contexts), vocabulary)
        metrics = {"num_contexts": longer.num_contexts}
    else:
        longer = read_lines(Path(contexts), vocabulary)
        metrics = {"num_unused_lines": longer.num_unused(records)}
    return LongerSet(
        records=lengthen(records, longer, frac=frac, seed=seed, limit=limit),
        bank=longer if isinstance(longer, ContextBank) else None,
        metrics=metrics,
    )
