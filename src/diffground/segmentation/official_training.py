"""Train the authors' MaskFormer: their network, matching and loss, on the images and views that train.py trains on.

Unlike the loss of train.py, theirs counts an ignored pixel as one that belongs to no mask, and compares masks at the
full size of the view.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffground.data.palette import IGNORE
from diffground.errors import UserError
from diffground.runtime.rank import is_one_of_several
from diffground.segmentation.config import SegmenterConfig, check_backend
from diffground.segmentation.detectron2_backend import OfficialMaskFormerSegmenter, build_official
from diffground.segmentation.maskformer import build_maskformer
from diffground.segmentation.official_weights import METADATA, to_official
from diffground.segmentation.sources import SegmentationSource
from diffground.segmentation.train import Part, ViewsTask, train_task
from diffground.training.loop import Execution, LossCurve

_BACKBONE = "backbone."


def fit_official(
    source: SegmentationSource,
    *,
    categories: tuple[str, ...],
    config: SegmenterConfig,
    device: torch.device,
    description: str,
    execution: Execution,
) -> tuple[OfficialMaskFormerSegmenter, LossCurve]:
    """Build the authors' network on the pretrained backbone and train it; on a CPU the result depends only on `source`
    and `config`.

    Raises: UserError when a package is missing, for a backbone that detectron2 cannot build, settings that the authors'
    code does not have, and in one of several processes.
    """
    check_backend(config)
    if is_one_of_several():
        raise UserError("segmenter.backend 'official' trains in one process; start the stage without a launcher")
    torch.manual_seed(config.seed)
    ours = build_maskformer(
        backbone=config.backbone,
        num_labels=1 + len(categories),
        matching=config.matching,
        hidden_dim=config.hidden_dim,
        num_queries=config.num_queries,
        decoder_layers=config.decoder_layers,
        ffn_dim=config.ffn_dim,
    )
    model = build_official(ours.config, device=device)
    weights = to_official(ours.state_dict()).items()
    model.backbone.load_state_dict({n.removeprefix(_BACKBONE): w for n, w in weights if n.startswith(_BACKBONE)})
    segmenter = OfficialMaskFormerSegmenter(
        model, config=ours.config, categories=categories, image_size=config.image_size, device=device
    )
    curve = train_task(
        OfficialTask(model, source, image_size=config.image_size, device=device),
        backbone=model.backbone,
        num_samples=len(source),
        iterations=config.iterations,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        backbone_lr_factor=config.backbone_lr_factor,
        weight_decay=config.weight_decay,
        seed=config.seed,
        device=device,
        description=description,
        execution=execution,
    )
    return segmenter, curve


class OfficialTask(ViewsTask):
    """The loss as the authors' model returns it in training: classes, focal and dice, after every decoder layer."""

    model: Any

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Of a saved state, which does not keep the version that to_official writes into `_metadata`."""
        state = OrderedDict(state_dict)
        state._metadata = {f"model.{name}": value for name, value in METADATA.items()}  # type: ignore[attr-defined]
        return super().load_state_dict(state, strict=strict, assign=assign)

    def count(self, part: Part) -> Tensor:
        num_queries, weight = self.model.num_queries, self.model.criterion.eos_coef
        nums = [len(_classes(label)) for label in part.labels]
        num_matched = sum(min(num, num_queries) for num in nums)
        weighted = num_matched + (len(nums) * num_queries - num_matched) * weight
        return torch.tensor([sum(nums), weighted], dtype=torch.float32, device=part.labels.device)

    def forward(self, part: Part, totals: Tensor) -> Tensor:
        from detectron2.structures import Instances

        inputs = []
        for image, label in zip(255 * part.images, part.labels, strict=True):
            classes = _classes(label)
            masks = label[None] == classes[:, None, None]  # (classes, S, S)
            inputs.append(
                {"image": image, "instances": Instances(tuple(label.shape), gt_classes=classes, gt_masks=masks)}
            )
        losses = self.model(inputs)
        # the model returns means over this part, that over masks divided by 1 where there is none
        counts = self.count(part)
        of_masks, of_queries = counts[0].clamp(min=1) / totals[0].clamp(min=1), counts[1] / totals[1]
        shares = [loss * (of_queries if name.startswith("loss_ce") else of_masks) for name, loss in losses.items()]
        return torch.stack(shares).sum()


def _classes(label: Tensor) -> Tensor:
    """The labels in an image, int64 (classes,), without 255."""
    return torch.unique(label[label != IGNORE]).long()
