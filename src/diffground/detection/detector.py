"""What the method needs from a detector: instances with a label, a score and a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from diffground.errors import UserError


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


BACKENDS = ("torchvision", "transformers", "detectron2")


def load_detector(*, backend: str, checkpoint: str, mask_threshold: float, device: torch.device) -> Detector:
    """Frozen detector. Raises: UserError for an unknown backend, one that is not installed, and for a checkpoint that
    is missing or not usable."""
    # each is imported only when it is used: they take seconds, and detectron2 is not installed everywhere
    if backend == "torchvision":
        from diffground.detection.torchvision_backend import MaskRcnnDetector

        return MaskRcnnDetector.load(checkpoint, mask_threshold=mask_threshold, device=device)
    if backend == "transformers":
        from diffground.detection.transformers_backend import MaskQueryDetector

        return MaskQueryDetector.load(checkpoint, mask_threshold=mask_threshold, device=device)
    if backend == "detectron2":
        from diffground.detection.detectron2_backend import Detectron2Detector

        return Detectron2Detector.load(checkpoint, mask_threshold=mask_threshold, device=device)
    raise UserError(f"detector.backend must be one of {', '.join(BACKENDS)}, got '{backend}'")
