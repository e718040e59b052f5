"""Prompts -> what the UNet is conditioned on: by one CLIP text encoder (Stable Diffusion 1.x, 2.x) or two (XL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from diffground.errors import UserError
from diffground.prompts import token_spans


@dataclass(frozen=True)
class EncodedText:
    """Prompts as the UNet reads them, in the text encoders' dtype."""

    states: Tensor
    """(B, T, D), one row per token; with several encoders, their states are concatenated along D."""
    pooled: Tensor | None
    """(B, P), the whole prompt in one vector; None where the UNet does not read it."""

    def last(self, num: int) -> EncodedText:
        """Of the last `num` prompts."""
        return EncodedText(self.states[-num:], None if self.pooled is None else self.pooled[-num:])

    def added_conditions(self, *, image_size: int) -> dict[str, Tensor] | None:
        """What the UNet of Stable Diffusion XL reads in addition to the states, for whole square images; else None."""
        if self.pooled is None:
            return None
        # height and width before cropping, top and left of the crop, height and width wanted
        sizes = [image_size, image_size, 0, 0, image_size, image_size]
        time_ids = torch.tensor([sizes], dtype=self.pooled.dtype, device=self.pooled.device)
        return {"text_embeds": self.pooled, "time_ids": time_ids.expand(len(self.pooled), -1)}


class TextEncoding:
    """The text encoders of a pipeline, frozen. `tokenizer` cuts prompts as all of them read it."""

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        """`pipeline` has tokenizer and text_encoder, and for Stable Diffusion XL tokenizer_2 and text_encoder_2.

        Raises: UserError when its tokenizers cut words differently: a token would have no position of its own.
        """
        self.tokenizer = pipeline.tokenizer
        second = getattr(pipeline, "text_encoder_2", None)
        self._tokenizers = [pipeline.tokenizer] if second is None else [pipeline.tokenizer, pipeline.tokenizer_2]
        self.encoders = [pipeline.text_encoder] if second is None else [pipeline.text_encoder, second]
        if any(tokenizer.get_vocab() != self.tokenizer.get_vocab() for tokenizer in self._tokenizers):
            raise UserError(
                "generator.checkpoint: its two tokenizers must share one vocabulary; take another checkpoint"
            )
        # the unconditional pass of Stable Diffusion XL reads zeros in place of the empty prompt
        self._empty_is_zero = bool(pipeline.config.get("force_zeros_for_empty_prompt", False))

    @property
    def dim(self) -> int:
        """Width of the states."""
        return sum(int(encoder.config.hidden_size) for encoder in self.encoders)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> EncodedText:
        """T is the tokenizer's maximum. Raises: UserError for a prompt that does not fit; nothing is cut off."""
        distinct = list(dict.fromkeys(prompts))  # with guidance, half of the batch is the same empty prompt
        outputs = [
            encoder(_token_ids(tokenizer, distinct).to(encoder.device), output_hidden_states=len(self.encoders) > 1)
            for tokenizer, encoder in zip(self._tokenizers, self.encoders, strict=True)
        ]
        if len(outputs) == 1:
            states, pooled = outputs[0].last_hidden_state, None
        else:
            # XL reads the second-to-last layer of both encoders and the pooled vector of the second
            states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
            pooled = outputs[-1].text_embeds
        if self._empty_is_zero:
            is_given = torch.tensor([prompt != "" for prompt in distinct], device=states.device)
            states = states * is_given[:, None, None]
            pooled = None if pooled is None else pooled * is_given[:, None]
        rows = {prompt: i for i, prompt in enumerate(distinct)}
        order = [rows[prompt] for prompt in prompts]
        return EncodedText(states=states[order], pooled=None if pooled is None else pooled[order])

    def token_weights(self, prompts: Sequence[str], words: Sequence[Sequence[str]]) -> Tensor:
        """float32 (B, T, Q): 1/n at the n token positions of word q in prompt b; zeros for an absent word.

        Where one word of a prompt is part of another, as "dog" of "hot dog", each has its own tokens (token_spans).
        """
        num_words = max((len(w) for w in words), default=0)
        weights = torch.zeros(len(prompts), self.tokenizer.model_max_length, num_words)
        for b, (prompt, phrases) in enumerate(zip(prompts, words, strict=True)):
            for q, positions in enumerate(token_spans(self.tokenizer, prompt, phrases)):
                weights[b, positions, q] = 1 / max(len(positions), 1)
        return weights


def _token_ids(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    limit = tokenizer.model_max_length
    token_ids = tokenizer(list(prompts), padding="max_length", max_length=limit).input_ids
    for prompt, ids in zip(prompts, token_ids, strict=True):
        if len(ids) > limit:
            raise UserError(f"prompt must fit into {limit} tokens, got {len(ids)}: '{prompt}'; shorten it")
    return torch.tensor(token_ids)
