"""The detector that params.yaml names: a backend and a checkpoint."""

from __future__ import annotations

import torch

from diffground.detection.detector import Detector
from diffground.errors import UserError

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
