"""A tiny pretrained backbone and pictures whose right labels are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ResNetBackbone, ResNetConfig


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "backbone"
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    ResNetBackbone(config).half().save_pretrained(folder)
    return folder


@pytest.fixture
def pictures() -> list[tuple[np.ndarray, np.ndarray]]:
    """Twelve 32 px images: a red (label 1), green (2) or blue (3) square on grey (0)."""
    rng = np.random.default_rng(0)
    items = []
    for i in range(12):
        image = np.full((32, 32, 3), 128, dtype=np.uint8)
        label = np.zeros((32, 32), dtype=np.uint8)
        y, x = rng.integers(2, 14, 2)
        image[y : y + 14, x : x + 14] = np.eye(3, dtype=np.uint8)[i % 3] * 255
        label[y : y + 14, x : x + 14] = 1 + i % 3
        items.append((image, label))
    return items
