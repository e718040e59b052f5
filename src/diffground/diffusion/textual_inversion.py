"""User-defined words: an embedding learned by textual inversion (Gal et al., ICLR 2023) becomes a word of the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffground.errors import UserError
from diffground.model_folders import check_inversion_file

_NAMELESS = ("emb_params", "*", "string_to_param.*")
"""Keys under which AUTOMATIC1111 and converters of its files store an embedding; the file's name is its word."""


def add_textual_inversion(pipeline: StableDiffusionPipeline, path: Path, *, token: str | None = None) -> str:
    """Add the embedding in `path` to the pipeline's tokenizer and text encoder, in place, before a Generator takes it.

    path: a safetensors file with one tensor, (D) or (N, D) for N vectors: under its word (diffusers) or `emb_params`
    (AUTOMATIC1111). token: how to write the word in prompts ("<my-dog>"); None takes the word in the file, or the
    file's name without suffix. Returns the phrase to use in prompts and as a category's words: the token, or for N
    vectors "<my-dog> <my-dog>_1 …".
    Raises: UserError for a file that is missing, pickled or holds something else, an embedding of another text
    encoder, and a token that is already a word.
    """
    name, embedding = _read_embedding(path)
    token = token or name
    vectors = embedding.reshape(-1, embedding.shape[-1])  # (N, D)
    width = pipeline.text_encoder.get_input_embeddings().embedding_dim
    if vectors.shape[-1] != width:
        raise UserError(
            f"{path}: its vectors have {vectors.shape[-1]} numbers, those of this text encoder {width}; "
            "take an embedding learned for this generator"
        )
    tokens = [token, *(f"{token}_{i}" for i in range(1, len(vectors)))]
    for new in tokens:
        if not new or new.split() != [new]:
            raise UserError(f"{path}: a token is one word without spaces, got '{new}'; pass another token")
        if new in pipeline.tokenizer.get_vocab() or len(pipeline.tokenizer.tokenize(new)) == 1:
            raise UserError(f"{path}: '{new}' is a word of the tokenizer already; pass another token, as <{token}>")
    with torch.random.fork_rng(devices=[]):
        # All new rows are overwritten, so a random start is enough; the default one warns and computes a covariance.
        pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer) + len(vectors), mean_resizing=False)
        pipeline.load_textual_inversion(vectors, token=token)
    return " ".join(tokens)


def _read_embedding(path: Path) -> tuple[str, Tensor]:
    """The word under which the file stores its embedding, or the file's own name, and the embedding."""
    check_inversion_file(path)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error}); restore it") from None
    if len(tensors) != 1:
        names = ", ".join(sorted(tensors)) or "none"
        raise UserError(f"{path}: must hold one tensor, got {len(tensors)} ({names}); give a textual inversion")
    ((key, embedding),) = tensors.items()
    if embedding.ndim not in (1, 2) or not embedding.numel() or not torch.isfinite(embedding).all():
        raise UserError(
            f"{path}: '{key}' must be finite numbers (D) or (N, D), got {tuple(embedding.shape)}; "
            "give a textual inversion"
        )
    return (path.stem if key in _NAMELESS else key), embedding.float()


def spell_out(text: str, phrases: Mapping[str, str]) -> str:
    """`text` with each token written as its phrase: "a <cat>" -> "a <cat> <cat>_1" where it has two vectors.

    Phrases that are already spelt out stay unchanged.
    """
    for token, phrase in phrases.items():
        if phrase not in text:
            text = phrase.join(re.split(rf"(?<!\w){re.escape(token)}(?!\w)", text))
    return text
