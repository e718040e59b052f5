"""What the method needs from a detector: instances with a label, a score and a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Instances:
    """What a detector found in one image, best score first.

    `labels`: N names in the detector's own vocabulary; `scores` float32 (N,), 0..1; `masks` bool (N, H, W).
    """

    labels: list[str]
    scores: np.ndarray
    masks: np.ndarray


class Detector(Protocol):
    """`labels`: all names it can give. `detect`: uint8 images (B, H, W, 3) -> Instances of each."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def detect(self, images: np.ndarray) -> list[Instances]: ...
