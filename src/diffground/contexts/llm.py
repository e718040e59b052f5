"""Contexts written by a local language model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from diffground.contexts.bank import ANY, ContextBank
from diffground.contexts.lengthen import TokenLimit
from diffground.contexts.words import named_categories
from diffground.errors import UserError, in_one_line
from diffground.prompts import token_spans
from diffground.runtime.fingerprint import is_hub_id
from diffground.runtime.progress import Progress
from diffground.vocabulary import Vocabulary, photograph_of

NUM_ANSWERS = 12
"""Answers per category; those that pass the check are its contexts."""
_MAX_NEW_TOKENS, _TEMPERATURE, _TOP_P = 24, 0.8, 0.95
_ANY_THING = "thing"
_EXAMPLES = (
    "a photograph of a lantern hanging above a narrow alley",
    "a photograph of a violin leaning against a brick wall",
    "a photograph of a windmill on a hill at sunset",
)
_REQUEST = (
    "Complete the caption of a photograph with a short phrase that says where the object is, what it does or what "
    "surrounds it. Name no other animal, vehicle, furniture, food, tool or person. Examples:\n"
)
_FIRST_WORDS = {
    "above", "across", "against", "along", "alongside", "among", "amid", "around", "at", "atop", "before", "behind",
    "below", "beneath", "beside", "between", "beyond", "by", "down", "during", "from", "in", "inside", "into", "near",
    "next", "of", "off", "on", "onto", "outside", "over", "past", "through", "toward", "towards", "under", "underneath",
    "up", "upon", "with", "within", "without",
}  # fmt: skip


class LanguageModel:
    """A frozen causal language model of transformers."""

    def __init__(self, model: Any, tokenizer: Any, *, device: torch.device) -> None:
        self._model, self._tokenizer, self._device = model.to(device).eval().requires_grad_(False), tokenizer, device

    @classmethod
    def load(cls, checkpoint: str, *, device: torch.device) -> LanguageModel:
        """`checkpoint`: a folder or hub id with safetensors. Raises: UserError when it does not load."""
        key = f"prompts.contexts 'llm:{checkpoint}'"
        if not checkpoint or not (Path(checkpoint).is_dir() or is_hub_id(checkpoint)):
            raise UserError(f"{key}: must name a model folder or a hub id (owner/name) after llm:")
        transformers_logging.disable_progress_bar()
        try:
            tokenizer = AutoTokenizer.from_pretrained(checkpoint)
            model = AutoModelForCausalLM.from_pretrained(checkpoint, use_safetensors=True, dtype="auto")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = in_one_line(error)
            raise UserError(f"{key} does not load as a language model of transformers: {reason}") from error
        return cls(model, tokenizer, device=device)

    @torch.no_grad()
    def continuations(self, beginning: str, *, num: int, seed: int) -> list[str]:
        """Sample `num` continuations of a caption with `seed`. Returns: the text after the beginning.

        Raises: UserError for a chat model whose template cannot go on with an answer.
        """
        asked = self._request(beginning)
        inputs = self._tokenizer(asked, return_tensors="pt", add_special_tokens=not self._is_chat())
        ids = inputs.input_ids.to(self._device)  # (1, T)
        padding = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id)
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(seed)
            outputs = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=_TEMPERATURE,
                top_p=_TOP_P,
                num_return_sequences=num,
                max_new_tokens=_MAX_NEW_TOKENS,
                pad_token_id=next((token for token in padding if token is not None), None),
            )
        # decoded together with the beginning: some tokenizers drop a space at the start
        told = len(self._tokenizer.decode(ids[0], skip_special_tokens=True))
        return [self._tokenizer.decode(output, skip_special_tokens=True)[told:] for output in outputs]

    def _request(self, beginning: str) -> str:
        request = _REQUEST + "\n".join(_EXAMPLES)
        if not self._is_chat():
            return f"{request}\n{beginning}"
        messages = [{"role": "user", "content": request}, {"role": "assistant", "content": beginning}]
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, continue_final_message=True))
        except Exception as error:  # templates may raise any exception
            raise UserError(
                f"prompts.contexts: the model's chat template cannot continue an answer ({error}); take another model"
            ) from None

    def _is_chat(self) -> bool:
        return getattr(self._tokenizer, "chat_template", None) is not None


@dataclass(frozen=True)
class WrittenContexts:
    """`bank`: the answers that passed the check; `num_dropped`: those that did not, and duplicates."""

    bank: ContextBank
    num_dropped: int


def write_contexts(
    model: LanguageModel, vocabulary: Vocabulary, *, seed: int, limit: TokenLimit, num_answers: int = NUM_ANSWERS
) -> WrittenContexts:
    """Ask for contexts of every used category, and of no particular category for pairs. A category without a passing
    answer keeps the template's prompts."""
    keys = [category for category in vocabulary.categories if category in {*vocabulary.seen, *vocabulary.unseen}]
    longest = photograph_of(*sorted((vocabulary.phrases[key] for key in keys), key=limit.count)[-2:])
    contexts: dict[str, tuple[str, ...]] = {}
    with Progress(len(keys) + 1, description="contexts") as progress:
        for i, key in enumerate([*keys, ANY]):
            words = _ANY_THING if key == ANY else vocabulary.phrases[key]
            beginning = photograph_of(words)
            answers = model.continuations(beginning, num=num_answers, seed=seed * (len(vocabulary.categories) + 1) + i)
            categories = [category for category in vocabulary.categories if category != key]
            checked = [
                check_continuation(
                    answer, beginning=beginning, words=words, others=categories, longest=longest, limit=limit
                )
                for answer in answers
            ]
            accepted = tuple(dict.fromkeys(context for context in checked if context is not None))
            if accepted:
                contexts[key] = accepted
            progress.advance()
    num_accepted = sum(len(entries) for entries in contexts.values())
    bank = ContextBank(contexts=contexts, source="llm")
    return WrittenContexts(bank=bank, num_dropped=num_answers * (len(keys) + 1) - num_accepted)


def check_continuation(
    answer: str, *, beginning: str, words: str, others: Sequence[str], longest: str, limit: TokenLimit
) -> str | None:
    """The context that a model's answer holds, or None.

    It ends with the first line or sentence. It must begin like one ("in", "running", "covered"), have two words or
    more of plain letters, leave the category's `words` whole ("a dog" + "house" does not), name none of the categories
    `others`, and fit behind `longest`, the longest template that it may come to follow.
    """
    line = re.split(r"[\n.;:!?\"]", answer, maxsplit=1)[0].rstrip(" ,-'")
    context = line.strip(" ,")
    if not re.fullmatch(r"[a-z][a-z,' -]*", context) or " " not in context:
        return None
    first = re.split(r"[ ,]", context, maxsplit=1)[0]
    if first not in _FIRST_WORDS and not (len(first) > 4 and first.endswith(("ing", "ed"))):
        return None
    try:
        if not token_spans(limit.tokenizer, f"{beginning}{line}", [words])[0]:
            return None
    except (UserError, ValueError):
        return None
    if named_categories(context, others) or limit.count(f"{longest} {context}") > limit.most:
        return None
    return context
