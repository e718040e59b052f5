"""torchvision's Mask R-CNN as a Detector: from a model folder of ours, or with torchvision's own COCO weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import detection as torchvision_detection
from torchvision.models import get_model, get_model_weights, get_weight, list_models
from torchvision.models.detection import MaskRCNN

from diffground.atomic import atomic_file, write_atomically
from diffground.detection.detector import Instances
from diffground.detection.small_mask_rcnn import build_small_mask_rcnn
from diffground.errors import UserError

_ARCHITECTURE = "small_mask_rcnn"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


class MaskRcnnDetector:
    """A frozen Mask R-CNN. One image's instances do not depend on the other images of its batch."""

    def __init__(
        self, model: nn.Module, *, category_names: Sequence[str], mask_threshold: float, device: torch.device
    ) -> None:
        """`category_names[i]` is the name of the model's class i; class 0 is background."""
        self._model = model.to(device).eval().requires_grad_(False)
        self._names = tuple(category_names)
        self._mask_threshold = mask_threshold
        self._device = device

    @classmethod
    def load(cls, checkpoint: str, *, mask_threshold: float, device: torch.device) -> MaskRcnnDetector:
        """`checkpoint`: a folder with config.json and model.safetensors, or a name such as
        'MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1'.

        Raises: UserError when it is neither, or the folder holds a pickle, or its files do not fit each other.
        """
        if Path(checkpoint).is_dir():
            model, names = _load_folder(Path(checkpoint))
        else:
            model, names = _load_torchvision(checkpoint)
        return cls(model, category_names=names, mask_threshold=mask_threshold, device=device)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._names[1:]

    @torch.no_grad()
    def detect(self, images: np.ndarray) -> list[Instances]:
        """uint8 (B, H, W, 3) -> one Instances an image; no instance is dropped by its score here."""
        tensors = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W)
        return [
            Instances(
                labels=[self._names[i] for i in found["labels"].tolist()],
                scores=found["scores"].float().cpu().numpy(),
                masks=(found["masks"][:, 0] >= self._mask_threshold).cpu().numpy(),
            )
            for found in self._model(list(tensors))
        ]


def save_small_mask_rcnn(
    model: MaskRCNN, folder: Path, *, category_names: Sequence[str], model_config: Mapping[str, Any]
) -> None:
    """Write config.json and float16 model.safetensors, each atomically.

    `category_names` without the background; `model_config` holds the arguments of build_small_mask_rcnn.
    """
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    with atomic_file(folder / _WEIGHTS) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    config = {"architecture": _ARCHITECTURE, "category_names": list(category_names), "model": dict(model_config)}
    write_atomically(folder / _CONFIG, json.dumps(config, indent=2) + "\n")


def _load_folder(folder: Path) -> tuple[MaskRCNN, list[str]]:
    name = f"detector.checkpoint: folder '{folder}'"
    if not (folder / _WEIGHTS).is_file():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".ckpt", ".pt", ".pth", ".pkl"})
        if pickles:
            raise UserError(f"{name} holds '{pickles[0]}', a pickle, which is never loaded; convert it to {_WEIGHTS}")
        raise UserError(f"{name} has no {_WEIGHTS}; fetch or train the checkpoint, see pretrain/")
    try:
        config = json.loads((folder / _CONFIG).read_text())
        if config["architecture"] != _ARCHITECTURE:
            raise UserError(
                f"{name}: architecture must be '{_ARCHITECTURE}', got '{config['architecture']}' ({_CONFIG})"
            )
        model = build_small_mask_rcnn(**config["model"])
        model.load_state_dict(load_file(folder / _WEIGHTS))
        return model, ["background", *config["category_names"]]
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise UserError(
            f"{name}: {_CONFIG} and {_WEIGHTS} are damaged or do not fit: {reason}; fetch both again"
        ) from error


def _load_torchvision(entry: str) -> tuple[nn.Module, list[str]]:
    builders = {
        str(get_model_weights(b)[m]): b
        for b in list_models(torchvision_detection)
        if b.startswith("maskrcnn")
        for m in get_model_weights(b).__members__
    }
    if entry not in builders:
        raise UserError(
            f"detector.checkpoint must be a folder or one of {', '.join(sorted(builders))}, got '{entry}'; "
            "no such folder: fetch or train the checkpoint, see pretrain/"
        )
    weights = get_weight(entry)
    model = get_model(builders[entry], weights=None, weights_backbone=None)
    model.load_state_dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    names = ["background" if name == "__background__" else name for name in weights.meta["categories"]]
    return model, names
