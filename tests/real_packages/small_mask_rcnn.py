"""A small Mask R-CNN of detectron2 and its training on scenes of the mini world, as a model folder of the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from diffground.data.stickers.scenes import compose_scene
from diffground.data.stickers.sprites import load_sprites

CATEGORIES = ("dog", "car", "train")
"""In the scenes; detectors call these as the vocabulary does."""
CONFIG = """\
VERSION: 2
INPUT: {FORMAT: RGB, MIN_SIZE_TEST: 128, MAX_SIZE_TEST: 256}
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  MASK_ON: true
  PIXEL_MEAN: [127.5, 127.5, 127.5]
  PIXEL_STD: [63.75, 63.75, 63.75]
  BACKBONE: {NAME: build_resnet_fpn_backbone, FREEZE_AT: 0}
  RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64, NORM: BN, OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 48, NORM: BN}
  ANCHOR_GENERATOR: {SIZES: [[38], [72]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}
  RPN: {IN_FEATURES: [p3, p4], PRE_NMS_TOPK_TRAIN: 80, POST_NMS_TOPK_TRAIN: 60, PRE_NMS_TOPK_TEST: 60,
        POST_NMS_TOPK_TEST: 30, BATCH_SIZE_PER_IMAGE: 64}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3], NUM_CLASSES: %d, BATCH_SIZE_PER_IMAGE: 16,
              POSITIVE_FRACTION: 0.5, SCORE_THRESH_TEST: 0.05}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 128, POOLER_RESOLUTION: 7, POOLER_SAMPLING_RATIO: 1}
  ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 2, CONV_DIM: 48, POOLER_RESOLUTION: 14,
                  POOLER_SAMPLING_RATIO: 1, CLS_AGNOSTIC_MASK: true}
TEST: {DETECTIONS_PER_IMAGE: 8}
"""


def build(names: tuple[str, ...]) -> Any:
    from detectron2.config import CfgNode, get_cfg
    from detectron2.modeling import build_model

    config = get_cfg()
    config.merge_from_other_cfg(CfgNode.load_cfg(CONFIG % len(names)))
    config.MODEL.DEVICE = "cpu"
    return build_model(config)


def train(names: tuple[str, ...], *, iterations: int, batch_size: int = 8) -> Any:
    """On scenes of one or two objects of CATEGORIES; `names`: of all classes."""
    from detectron2.utils.events import EventStorage

    torch.manual_seed(0)
    book, rng = load_sprites(), np.random.default_rng(0)
    model = build(names).train()
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


def save(model: Any, folder: Path, *, names: tuple[str, ...]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG % len(names))
    (folder / "categories.txt").write_text("".join(f"{name}\n" for name in names))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    return folder
