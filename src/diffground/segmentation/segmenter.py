"""What Protocol II needs from a segmenter: scores of every label at every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np


class Segmenter(Protocol):
    """Labels: 0 is background, i the i-th category of `categories`, counted from 1."""

    @property
    def categories(self) -> tuple[str, ...]: ...

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """uint8 (H, W, 3), sizes may differ -> scores float32 (K + 1, H, W) of each, >= 0, larger is likelier."""
        ...

    def save(self, folder: Path, *, card: str) -> None:
        """Write a model folder; `card` becomes its README.md."""
        ...
