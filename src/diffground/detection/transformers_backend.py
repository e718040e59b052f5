"""Mask2Former and MaskFormer of transformers, trained for instance or panoptic segmentation, as a Detector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForUniversalSegmentation
from transformers.utils import logging as transformers_logging

from diffground.detection.detector import Instances
from diffground.errors import UserError, in_one_line
from diffground.runtime.fingerprint import is_hub_id

_MODEL_TYPES = ("mask2former", "maskformer")


class MaskQueryDetector:
    """A frozen model of mask queries. One image's instances do not depend on the other images of its batch."""

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        *,
        label_names: Mapping[int, str],
        mask_threshold: float,
        device: torch.device,
    ) -> None:
        """`processor`: the image processor of the checkpoint; `label_names[i]` is the name of the model's class i."""
        self._model = model.to(device).eval().requires_grad_(False)
        self._processor = processor
        self._names = tuple(label_names[i] for i in range(len(label_names)))
        self._mask_threshold = mask_threshold
        self._device = device

    @classmethod
    def load(cls, checkpoint: str, *, mask_threshold: float, device: torch.device) -> MaskQueryDetector:
        """`checkpoint`: a folder or hub id with config, image processor and safetensors.

        Raises: UserError when it is missing, pickled, incomplete or neither a Mask2Former nor a MaskFormer.
        """
        key = f"detector.checkpoint '{checkpoint}'"
        _check(Path(checkpoint), key)
        transformers_logging.disable_progress_bar()
        try:
            config = AutoConfig.from_pretrained(checkpoint)
            if config.model_type not in _MODEL_TYPES:
                raise UserError(f"{key} must be a {' or '.join(_MODEL_TYPES)}, got model type '{config.model_type}'")
            processor = AutoImageProcessor.from_pretrained(checkpoint)
            model, info = AutoModelForUniversalSegmentation.from_pretrained(
                checkpoint, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = in_one_line(error)
            raise UserError(f"{key} does not load as a transformers model: {reason}") from error
        if info["missing_keys"]:
            raise UserError(
                f"{key} has no weights for {len(info['missing_keys'])} of its parameters, "
                f"'{sorted(info['missing_keys'])[0]}' among them; take a checkpoint trained for segmentation"
            )
        return cls(model, processor, label_names=config.id2label, mask_threshold=mask_threshold, device=device)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._names

    @torch.no_grad()
    def detect(self, images: np.ndarray) -> list[Instances]:
        """uint8 (B, H, W, 3) -> one Instances an image; no instance is dropped by its score here."""
        inputs = self._processor(images=list(images), return_tensors="pt")
        outputs = self._model(pixel_values=inputs["pixel_values"].to(self._device))
        found = []
        for classes, masks, valid in zip(
            outputs.class_queries_logits, outputs.masks_queries_logits, inputs["pixel_mask"], strict=True
        ):
            inner = int(valid[:, 0].sum()), int(valid[0].sum())  # the image in the processor's padding
            labels, queries, scores = best_labels(classes)
            logits = F.interpolate(masks[None], size=valid.shape, mode="bilinear", align_corners=False)
            logits = logits[:, queries, : inner[0], : inner[1]]
            logits = F.interpolate(logits, size=images.shape[1:3], mode="bilinear", align_corners=False)[0]
            found.append(self._instances(labels, scores, logits))
        return found

    def _instances(self, labels: Tensor, scores: Tensor, logits: Tensor) -> Instances:
        """`labels` (N,), their `scores` (N,), mask `logits` (N, H, W). A mask without a pixel is none."""
        masks = logits >= _logit(self._mask_threshold)
        num_pixels = masks.sum(dim=(1, 2))
        certainty = (logits.sigmoid() * masks).sum(dim=(1, 2)) / num_pixels.clamp(min=1)
        scores = scores * certainty
        order = scores.argsort(descending=True, stable=True)
        order = order[num_pixels[order] > 0]
        return Instances(
            labels=[self._names[i] for i in labels[order].tolist()],
            scores=scores[order].float().cpu().numpy(),
            masks=masks[order].cpu().numpy(),
        )


def best_labels(class_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The Q likeliest pairs of query and label; a query may appear with several labels, or with none.

    Args: class_logits float (Q, K + 1), the null class last. Returns: labels, queries int64 (Q,), probabilities (Q,).
    """
    num_queries, num_classes = len(class_logits), class_logits.shape[1] - 1
    probs = class_logits.softmax(dim=-1)[:, :-1].flatten()  # (Q * K,)
    best, places = probs.topk(min(num_queries, len(probs)))
    return places % num_classes, places // num_classes, best


def _logit(prob: float) -> float:
    if prob <= 0:
        return -math.inf
    return math.inf if prob >= 1 else math.log(prob / (1 - prob))


def _check(folder: Path, key: str) -> None:
    if not folder.exists():
        if is_hub_id(str(folder)):
            return
        raise UserError(f"{key}: no such folder, and not a hub id; fetch the checkpoint or set another one")
    if folder.is_file():
        raise UserError(f"{key} is a file, must be a transformers model folder or hub id")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{key} has no .safetensors (pickles are never loaded); write it with save_pretrained(folder)")
    if not (folder / "preprocessor_config.json").is_file():
        raise UserError(f"{key} has no preprocessor_config.json; copy it from where the checkpoint comes from")
