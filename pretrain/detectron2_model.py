"""A small Mask R-CNN of detectron2 for scenes of 128 px, and its folder, as `detector.backend: detectron2` reads it.

Every part is one of detectron2's own, so config.yaml and the weights are all that is needed to build it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from diffground.atomic import atomic_file, write_atomically

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


def build(num_categories: int, *, device: str = "cpu") -> Any:
    """detectron2's GeneralizedRCNN with random weights."""
    from detectron2.config import CfgNode, get_cfg
    from detectron2.modeling import build_model

    config = get_cfg()
    config.merge_from_other_cfg(CfgNode.load_cfg(CONFIG % num_categories))
    config.MODEL.DEVICE = device
    return build_model(config)


def save(model: Any, folder: Path, *, names: Sequence[str]) -> None:
    """Write config.yaml, categories.txt (`names`: of all classes) and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.yaml", CONFIG % len(names))
    write_atomically(folder / "categories.txt", "".join(f"{name}\n" for name in names))
    with atomic_file(folder / "model.safetensors") as partial:
        save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, partial)
