"""Settings of the authors' MaskFormer under which it is the network of build_maskformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffground.errors import UserError
from diffground.segmentation.maskformer import MEAN, STD

DATA_SET = "diffground"
"""MaskFormer looks up detectron2's metadata of the training set, which is empty for this name."""
_DEPTHS = {
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
    ("bottleneck", (3, 8, 36, 3)): 152,
}


def official_settings(maskformer: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the authors' config, and their values, for a MaskFormerConfig of build_maskformer given as a dict.

    Raises: UserError for a backbone that their code cannot build.
    """
    backbone, decoder = maskformer["backbone_config"], maskformer["decoder_config"]
    widths, depths = backbone["hidden_sizes"], tuple(backbone["depths"])
    depth = _DEPTHS.get((backbone["layer_type"], depths))
    doubles = widths == [widths[0] * 2**i for i in range(len(widths))]
    # detectron2 has no other widths of the two small ones, and a first stage of stride 4 only
    if depth is None or not doubles or (depth < 50 and widths[0] != 64) or backbone["downsample_in_first_stage"]:
        raise UserError(
            "segmenter.backbone: the authors' MaskFormer needs a ResNet-18, 34, 50, 101 or 152, got one of "
            f"{backbone['layer_type']} blocks {list(depths)}, widths {widths}; use MaskFormerSegmenter for it"
        )
    return {
        "MODEL.META_ARCHITECTURE": "MaskFormer",
        "MODEL.PIXEL_MEAN": [255 * MEAN] * 3,
        "MODEL.PIXEL_STD": [255 * STD] * 3,
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": backbone["embedding_size"],
        "MODEL.RESNETS.RES2_OUT_CHANNELS": widths[0],
        "MODEL.RESNETS.WIDTH_PER_GROUP": widths[0] // 4,  # of a bottleneck's 3x3 convolution
        "MODEL.RESNETS.STRIDE_IN_1X1": backbone["downsample_in_bottleneck"],
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
        "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
        "MODEL.SEM_SEG_HEAD.NORM": "GN",
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": maskformer["fpn_feature_size"],
        "MODEL.SEM_SEG_HEAD.MASK_DIM": maskformer["mask_feature_size"],
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": len(maskformer["id2label"]),
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
        "MODEL.MASK_FORMER.HIDDEN_DIM": decoder["d_model"],
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": decoder["num_queries"],
        "MODEL.MASK_FORMER.NHEADS": decoder["decoder_attention_heads"],
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD": decoder["decoder_ffn_dim"],
        "MODEL.MASK_FORMER.DEC_LAYERS": decoder["decoder_layers"],
        "MODEL.MASK_FORMER.ENC_LAYERS": 0,
        "MODEL.MASK_FORMER.DROPOUT": decoder["dropout"],
        "MODEL.MASK_FORMER.PRE_NORM": False,
        "MODEL.MASK_FORMER.SIZE_DIVISIBILITY": 0,  # no padding
        "MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": True,
        "DATASETS.TRAIN": [DATA_SET],
    }
