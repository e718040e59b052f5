"""The authors' MaskFormer (github.com/facebookresearch/MaskFormer, on detectron2) as a Segmenter.

It reads and writes the model folders of maskformer.py, so models trained by one run with the other. Neither package is
a dependency: both are imported when a segmenter is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation

from diffground.errors import UserError
from diffground.segmentation.maskformer import MaskFormerSegmenter, resize_image
from diffground.segmentation.official_settings import official_settings
from diffground.segmentation.official_weights import from_official, to_official

INSTALL = (
    "install github.com/facebookresearch/detectron2 and github.com/facebookresearch/MaskFormer, in a clone with "
    "`make detectron2 SOURCES=…`, see docs/detectron2.md"
)


class OfficialMaskFormerSegmenter:
    """As MaskFormerSegmenter; computed by the authors' code."""

    def __init__(
        self,
        model: Any,
        *,
        config: MaskFormerConfig,
        categories: Sequence[str],
        image_size: int,
        device: torch.device,
    ) -> None:
        """`model`: what build_official made of `config`."""
        self.model = model.eval()
        self.image_size = image_size
        self.device = device
        self._config = config
        self._categories = tuple(categories)

    @classmethod
    def load(cls, folder: Path, *, device: torch.device) -> OfficialMaskFormerSegmenter:
        """Raises: UserError when the packages are not installed, and for a folder that is no segmenter or whose
        backbone detectron2 cannot build."""
        trained = MaskFormerSegmenter.load(folder, device=torch.device("cpu"))
        config = trained.model.config
        model = build_official(config, device=device)
        model.load_state_dict(to_official(trained.model.state_dict()))
        return cls(model, config=config, categories=trained.categories, image_size=trained.image_size, device=device)

    @property
    def categories(self) -> tuple[str, ...]:
        return self._categories

    @torch.no_grad()
    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As MaskFormerSegmenter.predict; masks are brought to the network's input size before the image's."""
        self.model.eval()
        scores = []
        for image in images:
            resized = 255 * resize_image(image, self.image_size)
            (output,) = self.model([{"image": resized, "height": image.shape[0], "width": image.shape[1]}])
            scores.append(output["sem_seg"].float().cpu().numpy())
        return scores

    def save(self, folder: Path, *, card: str) -> None:
        """Write the model folder that MaskFormerSegmenter.load and this class's load read."""
        model = MaskFormerForInstanceSegmentation(self._config)
        model.load_state_dict(from_official(self.model.state_dict()))
        segmenter = MaskFormerSegmenter(
            model, categories=self._categories, image_size=self.image_size, device=torch.device("cpu")
        )
        segmenter.save(folder, card=card)


def build_official(config: MaskFormerConfig, *, device: torch.device) -> Any:
    """The authors' model, from detectron2's registry, with weights drawn as they draw them.

    Raises: UserError when a package is missing, and for a backbone that detectron2 cannot build.
    """
    official = official_config(official_settings(config.to_dict()))
    from detectron2.modeling import build_model

    official.MODEL.DEVICE = str(device)
    return build_model(official)


def official_config(settings: Mapping[str, Any]) -> Any:
    """The authors' default config, a CfgNode, with `settings` in it. Raises: UserError when a package is missing."""
    try:
        from detectron2.config import get_cfg
        from detectron2.projects.deeplab import add_deeplab_config
        from mask_former import add_mask_former_config
    except ImportError as error:
        raise UserError(f"the authors' MaskFormer needs detectron2 and mask_former ({error}); {INSTALL}") from None
    config = get_cfg()
    add_deeplab_config(config)
    add_mask_former_config(config)
    config.merge_from_list([entry for setting in settings.items() for entry in setting])
    return config
