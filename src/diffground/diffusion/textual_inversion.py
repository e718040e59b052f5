"""User-defined words: an embedding learned by textual inversion (Gal et al., ICLR 2023) becomes a word of the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffground.errors import UserError
from diffground.model_folders import check_inversion_file

_NAMELESS = ("emb_params", "*", "string_to_param.*")
"""Keys under which AUTOMATIC1111 and converters of its files store an embedding; the file's name is its word."""
_OF_XL = ("clip_l", "clip_g")
"""Keys of the embeddings for the first and the second text encoder of Stable Diffusion XL."""


def add_textual_inversion(pipeline: DiffusionPipeline, path: Path, *, token: str | None = None) -> str:
    """Add the embedding in `path` to a pipeline's tokenizers and text encoders, in place, before a Generator takes it.

    path: a safetensors file with one tensor, (D) or (N, D) for N vectors: under its word (diffusers) or `emb_params`
    (AUTOMATIC1111); for Stable Diffusion XL, which has two text encoders, with two: `clip_l` (N, D) of the first and
    `clip_g` (N, E) of the second. token: how to write the word in prompts ("<my-dog>"); None takes the word in the
    file, or the file's name without suffix. Returns the phrase to use in prompts and as a category's words: the token,
    or for N vectors "<my-dog> <my-dog>_1 …".
    Raises: UserError for a file that is missing, pickled or holds something else, an embedding of another text
    encoder or of one of two, and a token that is already a word.
    """
    encoders = [(pipeline.tokenizer, pipeline.text_encoder)]
    if getattr(pipeline, "text_encoder_2", None) is not None:
        encoders.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    name, embeddings = _read_embeddings(path, num=len(encoders))
    token = token or name
    vectors = [embedding.reshape(-1, embedding.shape[-1]) for embedding in embeddings]  # (N, D) each
    for of_encoder, (_, encoder) in zip(vectors, encoders, strict=True):
        width = encoder.get_input_embeddings().embedding_dim
        if of_encoder.shape[-1] != width:
            raise UserError(
                f"{path}: its vectors have {of_encoder.shape[-1]} numbers, those of this text encoder {width}; "
                "take an embedding learned for this generator"
            )
    tokens = [token, *(f"{token}_{i}" for i in range(1, len(vectors[0])))]
    for new in tokens:
        if not new or new.split() != [new]:
            raise UserError(f"{path}: a token is one word without spaces, got '{new}'; pass another token")
        for tokenizer, _ in encoders:
            if new in tokenizer.get_vocab() or len(tokenizer.tokenize(new)) == 1:
                raise UserError(f"{path}: '{new}' is a word of the tokenizer already; pass another token, as <{token}>")
    with torch.random.fork_rng(devices=[]):
        for of_encoder, (tokenizer, encoder) in zip(vectors, encoders, strict=True):
            # all new rows are overwritten: a random start is enough, the default one warns and computes a covariance
            encoder.resize_token_embeddings(len(tokenizer) + len(of_encoder), mean_resizing=False)
            pipeline.load_textual_inversion(of_encoder, token=token, tokenizer=tokenizer, text_encoder=encoder)
    return " ".join(tokens)


def _read_embeddings(path: Path, *, num: int) -> tuple[str, list[Tensor]]:
    """The word under which the file stores its embedding, or the file's own name, and the embedding for each of `num`
    text encoders."""
    check_inversion_file(path)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error}); restore it") from None
    names = ", ".join(sorted(tensors)) or "none"
    if num == 1 and len(tensors) != 1:
        of_xl = ", one of Stable Diffusion XL needs such a generator" if set(tensors) == set(_OF_XL) else ""
        raise UserError(
            f"{path}: must hold one tensor, got {len(tensors)} ({names}); give a textual inversion for this generator"
            f"{of_xl}"
        )
    if num == 2 and set(tensors) != set(_OF_XL):
        raise UserError(
            f"{path}: must hold {' and '.join(_OF_XL)}, as this generator has two text encoders, got {names}; give a "
            "textual inversion for Stable Diffusion XL"
        )
    keys = list(tensors) if num == 1 else list(_OF_XL)
    for key in keys:
        embedding = tensors[key]
        if embedding.ndim not in (1, 2) or not embedding.numel() or not torch.isfinite(embedding).all():
            raise UserError(
                f"{path}: '{key}' must be finite numbers (D) or (N, D), got {tuple(embedding.shape)}; "
                "give a textual inversion"
            )
    if len({tensors[key].numel() // tensors[key].shape[-1] for key in keys}) > 1:
        shapes = " and ".join(str(tuple(tensors[key].shape)) for key in keys)
        raise UserError(f"{path}: {' and '.join(keys)} must have the same number of vectors, got {shapes}; restore it")
    nameless = num == 2 or keys[0] in _NAMELESS
    return (path.stem if nameless else keys[0]), [tensors[key].float() for key in keys]


def spell_out(text: str, phrases: Mapping[str, str]) -> str:
    """`text` with each token written as its phrase: "a <cat>" -> "a <cat> <cat>_1" where it has two vectors.

    Phrases that are already spelt out stay unchanged.
    """
    for token, phrase in phrases.items():
        if phrase not in text:
            text = phrase.join(re.split(rf"(?<!\w){re.escape(token)}(?!\w)", text))
    return text
