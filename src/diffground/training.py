"""What the trainings have in common: in which order samples come, and the curve of the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

LOG_EVERY = 50
"""Iterations between two points of the loss curve."""


def shuffled_batches(num_samples: int, *, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Endless batches of exactly `batch_size` indices; every sample comes once before any comes again."""
    queue: list[int] = []
    while True:
        while len(queue) < batch_size:
            queue += torch.randperm(num_samples, generator=generator).tolist()
        yield queue[:batch_size]
        queue = queue[batch_size:]


@dataclass
class LossCurve:
    """Mean loss of every LOG_EVERY iterations, and of those left over at the end."""

    iterations: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._recent: list[Tensor] = []

    def add(self, loss: Tensor, *, iteration: int, last: bool) -> None:
        """Take the loss, a scalar on any device, of `iteration`, counted from 1; it is read off only for a point."""
        self._recent.append(loss.detach())
        if iteration % LOG_EVERY == 0 or last:
            self.iterations.append(iteration)
            self.losses.append(float(torch.stack(self._recent).mean()))
            self._recent = []
