"""What a GroundedPipeline returns: images, and where their words are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from diffground.data.overlay import paint_masks


@dataclass(frozen=True)
class GroundedSample:
    """One image and where its words are."""

    image: Image.Image
    """RGB."""
    words: tuple[str, ...]
    probs: np.ndarray
    """float32 (Q, H, W) in 0..1: probability that a pixel shows word q, independent per word."""
    masks: np.ndarray
    """bool (Q, H, W)."""
    prompt: str
    seed: int | None = None
    """Of the noise; None for a real image."""

    def overlay(self, *, opacity: float = 0.55) -> Image.Image:
        """The image with its masks painted, in its own size; opacity in 0..1."""
        return Image.fromarray(paint_masks(np.asarray(self.image), self.masks, opacity=opacity))


@dataclass(frozen=True)
class GroundedOutput(Sequence[GroundedSample]):
    """What a pipeline returns for B prompts. `output[i]` is the sample of prompt i."""

    samples: tuple[GroundedSample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # the overloads of Sequence
        return self.samples[index]

    @property
    def images(self) -> list[Image.Image]:
        return [sample.image for sample in self.samples]

    @property
    def masks(self) -> np.ndarray:
        """bool (B, Q, H, W); False for the missing words of a prompt that has fewer than Q."""
        return self._stack([sample.masks for sample in self.samples])

    @property
    def probs(self) -> np.ndarray:
        """float32 (B, Q, H, W); 0 for the missing words of a prompt that has fewer than Q."""
        return self._stack([sample.probs for sample in self.samples])

    @staticmethod
    def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
        num = max(map(len, arrays))
        return np.stack([np.pad(a, [(0, num - len(a)), (0, 0), (0, 0)]) for a in arrays])
