"""A small Mask R-CNN of detectron2 after a few steps on scenes of the mini world."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from diffground.data.stickers.scenes import compose_scene
from diffground.data.stickers.sprites import load_sprites
from pretrain.detectron2_model import build

CATEGORIES = ("dog", "car", "train")
"""In the scenes; detectors call these as the vocabulary does."""


def train(names: tuple[str, ...], *, iterations: int, batch_size: int = 8) -> Any:
    """On scenes of one or two objects of CATEGORIES; `names`: of all classes."""
    from detectron2.utils.events import EventStorage

    torch.manual_seed(0)
    book, rng = load_sprites(), np.random.default_rng(0)
    model = build(len(names)).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
    with EventStorage():
        for iteration in range(iterations):
            for group in optimizer.param_groups:
                group["lr"] = (
                    2e-3 * min(1.0, (iteration + 1) / 20) * (0.5 + 0.5 * np.cos(np.pi * iteration / iterations))
                )
            losses = model([_scene(book, rng, names, 1 + i % 2) for i in range(batch_size)])
            optimizer.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
    return model.eval()


def _scene(book: Any, rng: np.random.Generator, names: tuple[str, ...], num_objects: int) -> dict[str, Any]:
    from detectron2.structures import BitMasks, Instances

    categories = [str(name) for name in rng.choice(CATEGORIES, size=num_objects, replace=False)]
    sprites = [book.train[name][rng.integers(len(book.train[name]))] for name in categories]
    scene = compose_scene(rng, sprites=sprites, image_size=128)
    masks = BitMasks(torch.from_numpy(np.stack(scene.masks)))
    instances = Instances((128, 128), gt_masks=masks, gt_boxes=masks.get_bounding_boxes())
    instances.gt_classes = torch.tensor([names.index(name) for name in categories])
    return {"image": torch.from_numpy(scene.image).permute(2, 0, 1), "instances": instances}
