"""detectron2's Mask R-CNN as a Detector. detectron2 is no dependency: it is imported when a detector is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from diffground.detection.detector import Instances
from diffground.detection.detectron2_files import (
    CATEGORIES,
    CONFIG,
    find_weights,
    load_weights,
    read_categories,
    zoo_config,
)
from diffground.errors import UserError, in_one_line

INSTALL = "`make detectron2 SOURCES=…` in a clone, or pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git'"


class Detectron2Detector:
    """A frozen GeneralizedRCNN with masks. One image's instances do not depend on the other images of its batch."""

    def __init__(self, config: Any, model: Any, *, categories: Sequence[str], mask_threshold: float) -> None:
        """`config`: a detectron2 CfgNode; `model`: what detectron2.modeling.build_model made of it; `categories[i]`:
        the name of class i."""
        from detectron2.data import transforms

        self._model = model.eval().requires_grad_(False)
        self._names = tuple(categories)
        self._mask_threshold = mask_threshold
        self._is_bgr = config.INPUT.FORMAT == "BGR"
        shortest = config.INPUT.MIN_SIZE_TEST
        self._resize = transforms.ResizeShortestEdge([shortest, shortest], config.INPUT.MAX_SIZE_TEST)

    @classmethod
    def load(cls, checkpoint: str, *, mask_threshold: float, device: torch.device) -> Detectron2Detector:
        """`checkpoint`: a folder with config.yaml and its weights, .safetensors or .pth.

        config.yaml is a detectron2 config; its _BASE_ may be the name of one of the model zoo. categories.txt has the
        name of a class per line; without it, the classes are those of the data set in DATASETS.TRAIN.
        Raises: UserError when detectron2 is not installed, and for a folder that is incomplete or does not fit.
        """
        folder = Path(checkpoint)
        weights = find_weights(folder)
        require_detectron2("detector.backend")
        from detectron2.modeling import build_model

        config = _read_config(folder / CONFIG, device=device)
        categories = _categories(folder, config)
        model = build_model(config)
        load_weights(model, weights)
        return cls(config, model, categories=categories, mask_threshold=mask_threshold)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._names

    @torch.no_grad()
    def detect(self, images: np.ndarray) -> list[Instances]:
        """uint8 (B, H, W, 3) -> one Instances an image. Scores below the config's SCORE_THRESH_TEST are left out."""
        from detectron2.modeling.postprocessing import detector_postprocess

        height, width = images.shape[1:3]
        ordered = images[..., ::-1] if self._is_bgr else images
        resized = [self._resize.get_transform(image).apply_image(image) for image in ordered]
        inputs = [{"image": torch.from_numpy(r.astype(np.float32)).permute(2, 0, 1)} for r in resized]
        found = []
        for instances in self._model.inference(inputs, do_postprocess=False):
            instances = detector_postprocess(instances, height, width, mask_threshold=self._mask_threshold)
            order = instances.scores.argsort(descending=True, stable=True)
            found.append(
                Instances(
                    labels=[self._names[i] for i in instances.pred_classes[order].tolist()],
                    scores=instances.scores[order].float().cpu().numpy(),
                    masks=instances.pred_masks[order].bool().cpu().numpy(),
                )
            )
        return found


def require_detectron2(key: str) -> None:
    """Raises: UserError, `key` is the parameter that asks for it, when detectron2 cannot be imported."""
    try:
        import detectron2  # noqa: F401
    except ImportError as error:
        raise UserError(f"{key} 'detectron2' needs detectron2 ({error}); install it from upstream: {INSTALL}") from None


def _categories(folder: Path, config: Any) -> tuple[str, ...]:
    """Of the classes of the model. Raises: UserError when they have no names, or another number of them."""
    from detectron2.data import MetadataCatalog

    names, source = read_categories(folder), str(folder / CATEGORIES)
    if names is None:
        dataset = config.DATASETS.TRAIN[0] if len(config.DATASETS.TRAIN) else ""
        known = getattr(MetadataCatalog.get(dataset), "thing_classes", None) if dataset else None
        if not known:
            raise UserError(
                f"detector.checkpoint: {folder} has no {CATEGORIES}, and its {CONFIG} names no data set in "
                f"DATASETS.TRAIN whose categories detectron2 knows, such as coco_2017_train; got '{dataset}'; write "
                f"{CATEGORIES}, one category per line, in the order of the classes"
            )
        names, source = tuple(known), f"the data set '{dataset}' in DATASETS.TRAIN"
    num_classes = config.MODEL.ROI_HEADS.NUM_CLASSES
    if len(names) != num_classes:
        raise UserError(
            f"detector.checkpoint: {source} has {len(names)} categories, MODEL.ROI_HEADS.NUM_CLASSES is {num_classes} "
            f"({folder / CONFIG}); write {CATEGORIES} for these classes"
        )
    return names


def _read_config(path: Path, *, device: torch.device) -> Any:
    """The config as a frozen CfgNode. Raises: UserError for one that cannot be read or is of another architecture."""
    from detectron2 import model_zoo
    from detectron2.config import CfgNode, get_cfg

    config = get_cfg()
    base, changes = zoo_config(path)
    try:
        if base is None:
            # by default detectron2 lets a config run code
            config.merge_from_file(str(path), allow_unsafe=False)
        else:
            config.merge_from_file(model_zoo.get_config_file(base), allow_unsafe=False)
            config.merge_from_other_cfg(CfgNode(changes))
    except (KeyError, ValueError, AssertionError, RuntimeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: no detectron2 config: {in_one_line(error)}") from None
    if config.MODEL.META_ARCHITECTURE != "GeneralizedRCNN" or not config.MODEL.MASK_ON:
        raise UserError(
            f"{path}: MODEL.META_ARCHITECTURE must be GeneralizedRCNN with MASK_ON, got "
            f"{config.MODEL.META_ARCHITECTURE} with MASK_ON {config.MODEL.MASK_ON}; take one that gives masks"
        )
    config.MODEL.WEIGHTS = ""
    config.MODEL.DEVICE = str(device)
    config.freeze()
    return config
