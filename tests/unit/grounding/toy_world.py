"""A world whose right answers are known: one or two rectangles a picture, each carrying its word's vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffground.data.labelled import LabelledSample, oracle_sample
from diffground.grounding.features import CachedFeatures
from diffground.grounding.module import GroundingModule
from diffground.grounding.queries import stack_queries
from diffground.grounding.train import TrainingSet

SIZE = 8
"""Side of the finest feature map; masks are twice as large."""
DIM = 8
NUM_MAPS = 3


@dataclass(frozen=True)
class Toy:
    words: list[tuple[str, ...]]
    embeddings: dict[str, Tensor]
    maps: dict[int, Tensor]
    attention: Tensor
    masks: list[dict[str, np.ndarray]]

    def training_set(self, *, with_attention: bool) -> TrainingSet:
        features = CachedFeatures(
            maps=self.maps, attention=self.attention if with_attention else None, device=torch.device("cpu")
        )
        return TrainingSet(
            samples=toy_samples(self.words, self.masks),
            words=self.words,
            embeddings=self.embeddings,
            features=features,
            image_size=2 * SIZE,
        )


def toy_samples(
    words: Sequence[tuple[str, ...]], masks: Sequence[dict[str, np.ndarray]], ignored: np.ndarray | None = None
) -> list[LabelledSample]:
    """What the oracle's shards say of such pictures."""
    written = [
        oracle_sample(f"toy-{i}", categories=categories, masks=found, ignored=ignored)
        for i, (categories, found) in enumerate(zip(words, masks, strict=True))
    ]
    return [LabelledSample(sample, oracle=sample) for sample in written]


def make_toy(words: list[str], *, num_samples: int, seed: int, text_tells: bool) -> Toy:
    """Samples of one or two of `words`.

    A word's vector depends on its name alone. With `text_tells`, its pixels carry this vector, so what is learned from
    some words holds for all; without, they carry another random vector, and only the attention maps tell.
    """
    rng = np.random.default_rng(seed)
    text = {w: _vector(w, 0) for w in words}
    look = text if text_tells else {w: _vector(w, 1) for w in words}
    mixing = torch.from_numpy(np.random.default_rng(99).normal(size=(2 * DIM, DIM))).float()
    fine = torch.from_numpy(rng.normal(size=(num_samples, 2 * DIM, SIZE, SIZE))).float() * 0.2
    attention = torch.from_numpy(rng.random((num_samples, 2, NUM_MAPS, SIZE, SIZE))).float() * 0.05
    chosen, masks = [], []
    for i in range(num_samples):
        of_sample = tuple(str(w) for w in rng.choice(words, size=1 + i % 2, replace=False))
        slots = rng.permutation(2)
        found = {}
        for q, word in enumerate(of_sample):
            left, top = int(slots[q]) * SIZE // 2, int(rng.integers(0, 4))
            box = (slice(top, top + 4), slice(left, left + 3))
            fine[i, :, box[0], box[1]] += (mixing @ look[word])[:, None, None]
            attention[i, q, :, box[0], box[1]] += 0.1
            mask = np.zeros((SIZE, SIZE), dtype=bool)
            mask[box] = True
            found[word] = mask.repeat(2, axis=0).repeat(2, axis=1)
        chosen.append(of_sample)
        masks.append(found)
    coarse = torch.nn.functional.avg_pool2d(fine, 2)
    return Toy(words=chosen, embeddings=text, maps={SIZE // 2: coarse, SIZE: fine}, attention=attention, masks=masks)


def make_module(*, num_attention_maps: int, tokens_at: str = "features", patch_size: int = 1) -> GroundingModule:
    return GroundingModule(
        feature_channels={SIZE // 2: 2 * DIM, SIZE: 2 * DIM},
        text_dim=DIM,
        num_attention_maps=num_attention_maps,
        reduced_channels=(8, 16),
        embed_dim=32,
        num_layers=1,
        num_heads=4,
        ffn_dim=64,
        patch_size=patch_size,
        tokens_at=tokens_at,
    )


@torch.no_grad()
def toy_logits(module: GroundingModule, toy: Toy, indices: list[int]) -> Tensor:
    text, exists = stack_queries([toy.words[i] for i in indices], toy.embeddings)
    attention = toy.attention[indices][:, : text.shape[1]]
    maps = {size: values[indices] for size, values in toy.maps.items()}
    return module(maps, text, attention, image_size=2 * SIZE, exists=exists)


def toy_miou(module: GroundingModule, toy: Toy, *, num_words: int) -> float:
    """Mean over samples with so many words and over their words, 0..1."""
    indices = [i for i, words in enumerate(toy.words) if len(words) == num_words]
    masks = (toy_logits(module, toy, indices) > 0).numpy()
    scores = []
    for row, i in enumerate(indices):
        for q, word in enumerate(toy.words[i]):
            true = toy.masks[i][word]
            scores.append((masks[row, q] & true).sum() / (masks[row, q] | true).sum())
    return float(np.mean(scores))


def _vector(word: str, stream: int) -> Tensor:
    rng = np.random.default_rng([stream, *word.encode()])
    return torch.from_numpy(rng.normal(size=DIM)).float()
