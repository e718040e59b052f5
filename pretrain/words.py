"""The mini generator's words: its tokenizer and its CLIP text encoder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pascal import COCO_NAMES, PHRASES
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffground.data.stickers.backgrounds import PLACES
from diffground.data.stickers.colours import COLOURS
from diffground.data.stickers.sprites import SpriteBook
from diffground.vocabulary import with_article


def build_tokenizer(book: SpriteBook, *, max_tokens: int) -> CLIPTokenizer:
    """A CLIP tokenizer with one token per word of the captions; other words are split into letters."""
    names = [PHRASES.get(c, c) for c in [*book.train, *book.further]] + list(COCO_NAMES.values())
    phrases = [*names, *PLACES, *COLOURS]
    sentences = [f"a photograph of {with_article(phrase)} and an apple" for phrase in phrases]
    letters = [chr(code) for code in range(33, 127)]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    bpe.train_from_iterator(
        sentences, trainer
    )  # far fewer merges than vocab_size: it stops when every word is one token
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_tokens)


def carry_over_words(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, folder: Path) -> None:
    """Load the text encoder of the checkpoint in `folder`, whose tokenizer has other ids and fewer words.

    Words that it does not know keep their random embeddings.
    """
    part = load_file(next((folder / "text_encoder").glob("*.safetensors")))
    known = CLIPTokenizer.from_pretrained(folder / "tokenizer").get_vocab()
    weights = text_encoder.state_dict()
    for name, weight in part.items():
        if name.endswith("token_embedding.weight"):
            shared = [(new, known[token]) for token, new in tokenizer.get_vocab().items() if token in known]
            new_ids, old_ids = (torch.tensor(ids) for ids in zip(*shared, strict=True))
            weights[name][new_ids] = weight.float()[old_ids]
        else:
            weights[name] = weight.float()
    text_encoder.load_state_dict(weights)


def build_text_encoder(tokenizer: CLIPTokenizer, *, dim: int, layers: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=dim,
            intermediate_size=4 * dim,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=dim,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
