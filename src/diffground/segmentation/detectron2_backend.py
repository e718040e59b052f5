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
from diffground.segmentation.maskformer import MaskFormerSegmenter, resize_image
from diffground.segmentation.official_checkpoint import from_official, official_settings, to_official

INSTALL = (
    "install detectron2 from github.com/facebookresearch/detectron2, clone github.com/facebookresearch/MaskFormer and "
    "put the clone on PYTHONPATH"
)


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
