"""Train the grounding module on generated images and the oracle's masks (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffground.data.labelled import LabelledSample
from diffground.errors import UserError
from diffground.grounding.features import FeatureSource
from diffground.grounding.loss import grounding_loss, judged_queries
from diffground.grounding.module import GroundingModule
from diffground.grounding.queries import add_noise, keep_text, stack_queries
from diffground.training.loop import Execution, LossCurve, Task, train


@dataclass(frozen=True)
class TrainingSet:
    """Samples and the inputs of the module for them."""

    samples: Sequence[LabelledSample]
    """Each with the oracle's masks, `image_size` pixels wide and high."""
    words: Sequence[Sequence[str]]
    """Of each sample, by which words its prompt names its categories, in their order."""
    embeddings: Mapping[str, Tensor]
    """Word -> float (D,), for all that the samples name."""
    features: FeatureSource
    """Of sample i. Its attention maps hold the sample's categories in order, padded to the largest number of them."""
    image_size: int


@dataclass(frozen=True)
class _Draw:
    """A batch with its random choices."""

    indices: list[int]
    text: Tensor  # (B, Q, D)
    exists: Tensor  # (B, Q)
    text_kept: Tensor | None  # (B, Q)


@dataclass(frozen=True)
class _Part:
    """Some rows of a batch, on the training device, without their features."""

    indices: list[int]
    text: Tensor
    exists: Tensor
    text_kept: Tensor | None
    masks: Tensor  # (b, Q, H, W)
    judged: Tensor  # (b, Q)
    ignored: Tensor | None  # (b, H, W)


class GroundingTask(Task):
    """One term: the mean over the judged queries of a batch."""

    def __init__(
        self,
        module: GroundingModule,
        data: TrainingSet,
        *,
        training_type: str,
        query_noise: float,
        text_drop: float,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.module = module
        self._data, self._device = data, device
        self._training_type, self._query_noise, self._text_drop = training_type, query_noise, text_drop
        vectors = torch.stack(list(data.embeddings.values()))  # (words, D)
        self._scale = float(vectors.std(dim=0).mean()) if len(vectors) > 1 else float(vectors.std())

    def draw(self, indices: list[int], generator: torch.Generator) -> _Draw:
        text, exists = stack_queries([self._data.words[i] for i in indices], self._data.embeddings)
        text = add_noise(text, noise=self._query_noise, scale=self._scale, generator=generator)
        text_kept = keep_text(exists, drop_frac=self._text_drop, generator=generator)
        return _Draw(indices, text, exists, text_kept)

    def load(self, drawn: _Draw, rows: slice) -> _Part:
        data, indices, exists = self._data, drawn.indices[rows], drawn.exists[rows]
        samples = [data.samples[i] for i in indices]
        masks, found = stack_masks(
            [sample.masks() for sample in samples],
            [sample.categories for sample in samples],
            data.image_size,
            exists.shape[1],
        )
        judged = judged_queries(exists=exists, found=found, training_type=self._training_type)
        ignored = stack_ignored([sample.ignored() for sample in samples], data.image_size)
        return _Part(
            indices=indices,
            text=drawn.text[rows].to(self._device),
            exists=exists.to(self._device),
            text_kept=None if drawn.text_kept is None else drawn.text_kept[rows].to(self._device),
            masks=masks.to(self._device),
            judged=judged.to(self._device),
            ignored=None if ignored is None else ignored.to(self._device),
        )

    def count(self, part: _Part) -> Tensor:
        return part.judged.sum()[None].float()

    def forward(self, part: _Part, totals: Tensor) -> Tensor:
        with torch.autocast(self._device.type, enabled=False):
            features = self._data.features.batch(part.indices)
        attention = None if features.attention is None else features.attention[:, : part.text.shape[1]]
        logits = self.module(
            features.maps,
            part.text,
            attention,
            image_size=self._data.image_size,
            exists=part.exists,
            text_kept=part.text_kept,
        )
        with torch.autocast(self._device.type, enabled=False):
            loss = grounding_loss(logits.float(), part.masks, judged=part.judged, ignored=part.ignored)
        return loss * (self.count(part) / totals.clamp(min=1))[0]


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
    execution: Execution | None = None,
) -> LossCurve:
    """Train `module` in place on the device it is on, with Adam, and leave it in evaluation mode.

    Args: those of params.yaml, section grounding. Sample order, noise and dropping depend only on `seed`.
    Raises: UserError when there is no sample, or as `train` does.
    """
    if not data.samples:
        raise UserError(
            "train_grounding: no training sample has a mask; see reports/metrics and run `dvc repro detect`"
        )
    module.to(memory_format=torch.channels_last)  # convolutions are faster, on a CPU too
    optimizer = torch.optim.Adam(
        module.parameters(), lr=learning_rate, betas=(0.9, 0.999), weight_decay=weight_decay, fused=True
    )

    def set_rates(iteration: int) -> None:
        remaining = (iterations - iteration + 1) / iterations
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (min(1.0, remaining / decay_frac) if decay_frac > 0 else 1.0)

    device = next(module.parameters()).device
    task = GroundingTask(
        module, data, training_type=training_type, query_noise=query_noise, text_drop=text_drop, device=device
    )
    return train(
        task,
        optimizer,
        set_rates=set_rates,
        num_samples=len(data.samples),
        iterations=iterations,
        batch_size=batch_size,
        seed=seed,
        device=device,
        description="train_grounding",
        execution=execution,
    )


def stack_masks(
    masks: Sequence[Mapping[str, np.ndarray]], words: Sequence[Sequence[str]], image_size: int, num_queries: int
) -> tuple[Tensor, Tensor]:
    """Returns: masks float (B, Q, H, W), zero where nothing was found; found bool (B, Q). Q is `num_queries`."""
    stacked = torch.zeros(len(words), num_queries, image_size, image_size)
    found = torch.zeros(len(words), num_queries, dtype=torch.bool)
    for i, of_sample in enumerate(words):
        for j, word in enumerate(of_sample):
            if word in masks[i]:
                stacked[i, j] = torch.from_numpy(masks[i][word])
                found[i, j] = True
    return stacked, found


def stack_ignored(ignored: Sequence[np.ndarray | None], image_size: int) -> Tensor | None:
    """bool (H, W) per sample -> bool (B, H, W), False for a sample that ignores nothing; None when none does."""
    if all(pixels is None for pixels in ignored):
        return None
    nothing = np.zeros((image_size, image_size), dtype=np.bool_)
    return torch.from_numpy(np.stack([nothing if pixels is None else pixels for pixels in ignored]))
