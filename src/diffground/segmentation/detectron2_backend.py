"""The authors' MaskFormer (github.com/facebookresearch/MaskFormer, on detectron2) as a Segmenter.

It reads and writes the model folders of maskformer.py, so models trained by one run with the other. Neither package is
a dependency: both are imported when a segmenter is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation

from diffground.errors import UserError
from diffground.segmentation.maskformer import MEAN, STD, MaskFormerSegmenter, resize_image
from diffground.segmentation.official_weights import from_official, to_official

INSTALL = (
    "install detectron2 from github.com/facebookresearch/detectron2, clone github.com/facebookresearch/MaskFormer and "
    "put the clone on PYTHONPATH"
)
_DEPTHS = {
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
    ("bottleneck", (3, 8, 36, 3)): 152,
}
_DATA_SET = "diffground"  # MaskFormer looks up detectron2's metadata for it, which is empty


class OfficialMaskFormerSegmenter:
    """As MaskFormerSegmenter; computed by the authors' code."""

    def __init__(
        self, model: Any, *, maskformer: Mapping[str, Any], categories: Sequence[str], image_size: int
    ) -> None:
        """`model`: what detectron2 built of official_settings(maskformer)."""
        self._model = model.eval()
        self._maskformer = dict(maskformer)
        self._categories = tuple(categories)
        self._image_size = image_size

    @classmethod
    def load(cls, folder: Path, *, device: torch.device) -> OfficialMaskFormerSegmenter:
        """Raises: UserError when the packages are not installed, and for a folder that is no segmenter or whose
        backbone detectron2 cannot build."""
        trained = MaskFormerSegmenter.load(folder, device=torch.device("cpu"))
        maskformer = json.loads((folder / "config.json").read_text())["maskformer"]
        model = _build(official_settings(maskformer), device=device)
        model.load_state_dict(to_official(trained.model.state_dict()))
        return cls(model, maskformer=maskformer, categories=trained.categories, image_size=trained.image_size)

    @property
    def categories(self) -> tuple[str, ...]:
        return self._categories

    @torch.no_grad()
    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As MaskFormerSegmenter.predict; masks are brought to the network's input size before the image's."""
        scores = []
        for image in images:
            resized = 255 * resize_image(image, self._image_size)
            (output,) = self._model([{"image": resized, "height": image.shape[0], "width": image.shape[1]}])
            scores.append(output["sem_seg"].float().cpu().numpy())
        return scores

    def save(self, folder: Path, *, card: str) -> None:
        """Write the model folder that MaskFormerSegmenter.load and this class's load read."""
        model = MaskFormerForInstanceSegmentation(MaskFormerConfig.from_dict(self._maskformer))
        model.load_state_dict(from_official(self._model.state_dict()))
        segmenter = MaskFormerSegmenter(
            model, categories=self._categories, image_size=self._image_size, device=torch.device("cpu")
        )
        segmenter.save(folder, card=card)


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
        "MODEL.MASK_FORMER.TEST.SEMANTIC_INFERENCE_METHOD": "probabilistic",
        "MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": True,
        "DATASETS.TRAIN": [_DATA_SET],
    }


def _build(settings: Mapping[str, Any], *, device: torch.device) -> Any:
    """The authors' model with random weights. Raises: UserError when a package is missing."""
    try:
        from detectron2.config import get_cfg
        from detectron2.modeling import build_model
        from detectron2.projects.deeplab import add_deeplab_config
        from mask_former import add_mask_former_config
    except ImportError as error:
        raise UserError(f"the authors' MaskFormer needs detectron2 and mask_former ({error}); {INSTALL}") from None
    config = get_cfg()
    add_deeplab_config(config)
    add_mask_former_config(config)
    config.merge_from_list([entry for setting in settings.items() for entry in setting])
    config.MODEL.DEVICE = str(device)
    return build_model(config)
