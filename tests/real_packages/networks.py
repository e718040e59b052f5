"""MaskFormers that both the authors' code and transformers build, and what the tests ask of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import ResNetBackbone, ResNetConfig

from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer

WHY = "needs detectron2 and mask_former: make detectron2 SOURCES=…"
CPU = torch.device("cpu")
CATEGORIES = ("red", "green", "blue")
IMAGE_SIZE = 64
IMAGES = list(np.random.default_rng(0).integers(0, 256, (3, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8))
RESNET18 = {"layer_type": "basic", "embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
RESNET50 = {"layer_type": "bottleneck", "embedding_size": 8, "hidden_sizes": [32, 64, 128, 256], "depths": [3, 4, 6, 3]}
"""Of an eighth of the usual width."""


def save_backbone(folder: Path, resnet: dict[str, Any]) -> Path:
    """A transformers ResNet with random weights."""
    torch.manual_seed(0)
    config = ResNetConfig(**resnet, out_features=["stage1", "stage2", "stage3", "stage4"])
    ResNetBackbone(config).save_pretrained(folder)
    return folder


def segmenter(backbone: Path) -> MaskFormerSegmenter:
    """Norms and biases are drawn as well, so that one in the wrong place is seen."""
    torch.manual_seed(1)
    model = build_maskformer(
        backbone=str(backbone),
        num_labels=1 + len(CATEGORIES),
        matching="bipartite",
        hidden_dim=64,
        num_queries=7,
        decoder_layers=2,
        ffn_dim=48,
    )
    spread_norms(model)
    return MaskFormerSegmenter(model, categories=CATEGORIES, image_size=IMAGE_SIZE, device=CPU)


@torch.no_grad()
def spread_norms(model: torch.nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 1 and "criterion" not in name:
            tensor.copy_(torch.rand(tensor.shape) + 0.5 * ("weight" in name or "var" in name))


@torch.no_grad()
def official_scores(model: Any) -> list[np.ndarray]:
    """Of IMAGES, by the authors' model: float32 (K + 1, H, W) each."""
    inputs = [{"image": torch.from_numpy(image).permute(2, 0, 1)} for image in IMAGES]
    return [output["sem_seg"].numpy() for output in model.eval()(inputs)]


def assert_equal_scores(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected) == len(IMAGES)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == (1 + len(CATEGORIES), IMAGE_SIZE, IMAGE_SIZE)
        assert one.std() > 0.01
        np.testing.assert_allclose(one, other, atol=1e-4)
