"""Train the grounding module on generated images and the oracle's masks (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffground.errors import UserError
from diffground.grounding.features import FeatureSource
from diffground.grounding.loss import grounding_loss, judged_queries
from diffground.grounding.module import GroundingModule
from diffground.grounding.queries import add_noise, keep_text, stack_queries
from diffground.runtime.progress import Progress
from diffground.training import LossCurve, shuffled_batches


@dataclass(frozen=True)
class TrainingSet:
    """What there is to learn from: sample i has words, features, and a mask for each word that the oracle found."""

    words: Sequence[tuple[str, ...]]
    embeddings: Mapping[str, Tensor]
    """Word -> float (D,), for all words."""
    features: FeatureSource
    """Its attention maps hold every sample's words in order, padded to the largest number of words."""
    masks: Callable[[int], Mapping[str, np.ndarray]]
    """Masks of sample i: word -> bool (H, W); a word that was not found has none."""
    image_size: int
    ignored: Callable[[int], np.ndarray | None] = lambda i: None
    """Pixels of sample i that nobody labelled, bool (H, W); None where all are labelled."""


def train_module(
    module: GroundingModule,
    data: TrainingSet,
    *,
    training_type: str,
    iterations: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    decay_frac: float,
    query_noise: float,
    text_drop: float,
    seed: int,
) -> LossCurve:
    """Train `module` in place on the device it is on, with Adam, and leave it in evaluation mode.

    Args: those of params.yaml, section grounding. Sample order, noise and dropping depend on `seed` alone.
    Raises: UserError when there is no sample.
    """
    if not data.words:
        raise UserError(
            "train_grounding: no training sample has a mask; see reports/metrics and run `dvc repro detect`"
        )
    device = next(module.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.stack(list(data.embeddings.values()))  # (words, D)
    scale = float(vectors.std(dim=0).mean()) if len(vectors) > 1 else float(vectors.std())
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate, betas=(0.9, 0.999), weight_decay=weight_decay)
    batches = shuffled_batches(len(data.words), batch_size=batch_size, generator=generator)
    curve = LossCurve()
    module.train()
    with Progress(iterations, description="train_grounding") as progress:
        for iteration in range(1, iterations + 1):
            remaining = (iterations - iteration + 1) / iterations
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (min(1.0, remaining / decay_frac) if decay_frac > 0 else 1.0)
            indices = next(batches)
            text, exists = stack_queries([data.words[i] for i in indices], data.embeddings)
            text = add_noise(text, noise=query_noise, scale=scale, generator=generator)
            text_kept = keep_text(exists.to(device), drop_frac=text_drop, generator=generator)
            masks, found = stack_masks(
                [data.masks(i) for i in indices], [data.words[i] for i in indices], data.image_size
            )
            features = data.features.batch(indices)
            attention = None if features.attention is None else features.attention[:, : text.shape[1]]
            logits = module(
                features.maps, text.to(device), attention,
                image_size=data.image_size, exists=exists.to(device), text_kept=text_kept,
            )  # fmt: skip
            judged = judged_queries(exists=exists, found=found, training_type=training_type)
            ignored = stack_ignored([data.ignored(i) for i in indices], data.image_size)
            loss = grounding_loss(
                logits, masks.to(device), judged=judged.to(device),
                ignored=None if ignored is None else ignored.to(device),
            )  # fmt: skip
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.add(loss, iteration=iteration, last=iteration == iterations)
            progress.advance()
    module.eval()
    return curve


def stack_masks(
    masks: Sequence[Mapping[str, np.ndarray]], words: Sequence[Sequence[str]], image_size: int
) -> tuple[Tensor, Tensor]:
    """Returns: masks float (B, Q, H, W), zero where nothing was found; found bool (B, Q)."""
    num_queries = max(map(len, words))
    stacked = torch.zeros(len(words), num_queries, image_size, image_size)
    found = torch.zeros(len(words), num_queries, dtype=torch.bool)
    for i, of_sample in enumerate(words):
        for j, word in enumerate(of_sample):
            if word in masks[i]:
                stacked[i, j] = torch.from_numpy(masks[i][word])
                found[i, j] = True
    return stacked, found


def stack_ignored(ignored: Sequence[np.ndarray | None], image_size: int) -> Tensor | None:
    """bool (H, W) a sample -> bool (B, H, W), False for a sample that ignores nothing; None when none does."""
    if all(pixels is None for pixels in ignored):
        return None
    nothing = np.zeros((image_size, image_size), dtype=np.bool_)
    return torch.from_numpy(np.stack([nothing if pixels is None else pixels for pixels in ignored]))
