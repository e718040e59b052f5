"""The judge: predicts the concepts in an image, the colour of its object and the place of the scene.

A measuring instrument of its own, so that the generator is not scored by the detector that its masks come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

_BATCH_SIZE = 64


@dataclass(frozen=True)
class Verdict:
    """Predictions for one image. `colour`: None for no colour word; valid only with one object."""

    concepts: frozenset[str]
    colour: str | None
    place: str


class Judge(nn.Module):
    """A small ResNet, mean and maximum of its last maps, and a linear layer for each of three questions.

    Input: float32 (B, 3, S, S) in 0..1, S = input_size. Output: logits (B, K) of every concept's presence, (B, 1 + C)
    of the colour word, 0 for none, and (B, P) of the place.
    """

    def __init__(
        self,
        *,
        concepts: Sequence[str],
        colours: Sequence[str],
        places: Sequence[str],
        input_size: int,
        embedding_size: int,
        hidden_sizes: Sequence[int],
        depths: Sequence[int],
    ) -> None:
        super().__init__()
        self.concepts, self.colours, self.places = tuple(concepts), (None, *colours), tuple(places)
        self._input_size = input_size
        self.resnet = ResNetModel(
            ResNetConfig(
                embedding_size=embedding_size, hidden_sizes=list(hidden_sizes), depths=list(depths), layer_type="basic"
            )
        )
        dim = 2 * hidden_sizes[-1]
        self.concept = nn.Linear(dim, len(self.concepts))
        self.colour = nn.Linear(dim, len(self.colours))
        self.place = nn.Linear(dim, len(self.places))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.resnet((images - 0.5) / 0.25).last_hidden_state  # (B, D, h, w)
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)  # (B, 2D)
        return self.concept(pooled), self.colour(pooled), self.place(pooled)

    def to_input(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> uint8 (N, 3, S, S), averaged down to the input size."""
        return F.interpolate(images.float(), size=self._input_size, mode="area").round().byte()

    def look_at(self, images: np.ndarray, *, threshold: float) -> list[Verdict]:
        """Verdicts on images uint8 (N, H, W, 3); a concept counts as shown from probability `threshold` on."""
        concepts, colours, places = self._logits(images)
        return [
            Verdict(
                concepts=frozenset(self.concepts[k] for k in present.nonzero()[:, 0].tolist()),
                colour=self.colours[int(colour)],
                place=self.places[int(place)],
            )
            for present, colour, place in zip(
                concepts.sigmoid() >= threshold, colours.argmax(dim=1), places.argmax(dim=1), strict=True
            )
        ]

    def calibrate(self, images: np.ndarray, *, num_concepts: int) -> float:
        """The threshold at which it predicts `num_concepts` concepts in images uint8 (N, H, W, 3).

        With the number of those that are there, it misses as many as it makes up.
        """
        return float(self._logits(images)[0].sigmoid().flatten().topk(num_concepts).values[-1])

    @torch.no_grad()
    def _logits(self, images: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """As forward, of images uint8 (N, H, W, 3)."""
        self.eval()
        device, parts = self.concept.weight.device, []
        for start in range(0, len(images), _BATCH_SIZE):
            batch = torch.from_numpy(images[start : start + _BATCH_SIZE]).permute(0, 3, 1, 2)  # (B, 3, H, W)
            parts.append(self(self.to_input(batch).to(device).float() / 255))
        concepts, colours, places = (torch.cat(part) for part in zip(*parts, strict=True))
        return concepts, colours, places
