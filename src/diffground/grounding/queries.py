"""Words as queries: samples with different numbers of words in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def stack_queries(words: Sequence[Sequence[str]], embeddings: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Pad to the largest number of words.

    Args:
        words: the words of each sample, one or more.
        embeddings: word -> float (D,).
    Returns: text float (B, Q, D), zero where padded; exists bool (B, Q).
    Raises: ValueError for a sample without a word.
    """
    if not words or not all(words):
        raise ValueError("every sample needs at least one word to ground")
    num_queries = max(map(len, words))
    some = next(iter(embeddings.values()))
    text = some.new_zeros(len(words), num_queries, some.shape[-1])
    exists = torch.zeros(len(words), num_queries, dtype=torch.bool, device=some.device)
    for i, of_sample in enumerate(words):
        text[i, : len(of_sample)] = torch.stack([embeddings[word] for word in of_sample])
        exists[i, : len(of_sample)] = True
    return text, exists


def add_noise(text: Tensor, *, noise: float, scale: float, generator: torch.Generator) -> Tensor:
    """Text queries with noise for training, so that what is learned also holds near the seen words.

    Args:
        text: float (B, Q, D).
        noise: standard deviation of the Gaussian noise, in units of `scale`, the spread of the embeddings.
        generator: on the CPU; gives the same noise on every device.
    """
    if noise == 0:
        return text
    return text + noise * scale * torch.randn(text.shape, generator=generator).to(text)


def keep_text(exists: Tensor, *, drop_frac: float, generator: torch.Generator) -> Tensor | None:
    """Which queries keep their text, bool (B, Q) like `exists`; None: all. The others use only the attention branch."""
    if drop_frac == 0:
        return None
    return (torch.rand(exists.shape, generator=generator) >= drop_frac).to(exists.device)
