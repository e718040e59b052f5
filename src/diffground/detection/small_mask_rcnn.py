"""A Mask R-CNN (He et al. 2017) for images of about 64 px: torchvision's, with a small residual FPN and small heads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

FINEST, SECOND = "0", "1"
"""Names of the two finest feature maps. Masks are read from the finest, boxes are scored on the second; anchors lie on
the second and coarser ones. One sample a bin: RoIAlign's backward pass is serial on a CPU and was a third of a step."""


def build_small_mask_rcnn(
    *,
    num_categories: int,
    image_size: int,
    stem_channels: int,
    channels: Sequence[int],
    blocks: Sequence[int],
    fpn_channels: int,
    anchor_sizes: Sequence[Sequence[int]],
    anchor_ratios: Sequence[float],
    box_head_dim: int,
    mask_head_channels: int,
    mask_head_layers: int,
    score_threshold: float = 0.05,
    max_instances: int = 8,
) -> MaskRCNN:
    """Random weights. Input: list of float32 (3, H, W) in 0..1; output as torchvision's MaskRCNN.

    `channels` and `blocks`: width and number of residual blocks of the stages at stride 2, 4, 8 …
    `anchor_sizes`: px, one list a stage from stride 4 on.
    """
    backbone = SmallResidualFpn(
        stem_channels=stem_channels, channels=channels, blocks=blocks, out_channels=fpn_channels
    )
    anchors = AnchorGenerator(
        sizes=tuple(tuple(sizes) for sizes in anchor_sizes), aspect_ratios=(tuple(anchor_ratios),) * len(anchor_sizes)
    )
    num_classes = num_categories + 1  # class 0 is background
    model = MaskRCNN(
        backbone,
        min_size=image_size, max_size=2 * image_size, image_mean=[0.5] * 3, image_std=[0.25] * 3,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(fpn_channels, anchors.num_anchors_per_location()[0]),
        box_roi_pool=MultiScaleRoIAlign([SECOND], output_size=7, sampling_ratio=1),
        box_head=TwoMLPHead(fpn_channels * 7**2, box_head_dim),
        box_predictor=FastRCNNPredictor(box_head_dim, num_classes),
        mask_roi_pool=MultiScaleRoIAlign([FINEST], output_size=14, sampling_ratio=1),
        mask_head=MaskRCNNHeads(fpn_channels, [mask_head_channels] * mask_head_layers, 1),
        mask_predictor=SharedMaskPredictor(mask_head_channels, num_classes=num_classes),
        box_score_thresh=score_threshold, box_nms_thresh=0.5, box_detections_per_img=max_instances,
        box_batch_size_per_image=32, box_positive_fraction=0.25,
    )  # fmt: skip
    model.rpn = CoarseRpn(
        anchors, model.rpn.head, fg_iou_thresh=0.6, bg_iou_thresh=0.3, batch_size_per_image=64, positive_fraction=0.5,
        pre_nms_top_n={"training": 80, "testing": 60}, post_nms_top_n={"training": 60, "testing": 30}, nms_thresh=0.7,
    )  # fmt: skip
    return model


class SmallResidualFpn(nn.Module):
    """Image (B, 3, H, W) -> {"0": (B, out_channels, H/2, W/2), "1": stride 4, …}: residual net, top-down merging."""

    def __init__(
        self, *, stem_channels: int, channels: Sequence[int], blocks: Sequence[int], out_channels: int
    ) -> None:
        super().__init__()
        self.stem = _conv_norm(3, stem_channels)
        self.stages = nn.ModuleList()
        width = stem_channels
        for stage_width, num in zip(channels, blocks, strict=True):
            first = ResidualBlock(width, stage_width, stride=2)
            self.stages.append(nn.Sequential(first, *(ResidualBlock(stage_width, stage_width) for _ in range(num - 1))))
            width = stage_width
        self.lateral = nn.ModuleList(nn.Conv2d(c, out_channels, 1) for c in channels)
        self.smooth = nn.ModuleList(_conv_norm(out_channels, out_channels) for _ in channels)
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.stem(images))
        maps = [x := stage(x) for stage in self.stages]
        merged = self.lateral[-1](maps[-1])
        outputs = [F.relu(self.smooth[-1](merged))]
        for i in reversed(range(len(maps) - 1)):
            lateral = self.lateral[i](maps[i])
            merged = lateral + F.interpolate(merged, size=lateral.shape[-2:], mode="nearest")
            outputs.append(F.relu(self.smooth[i](merged)))
        return OrderedDict((str(i), output) for i, output in enumerate(reversed(outputs)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, batch norm, a shortcut (He et al. 2016): (B, C, H, W) -> (B, C', H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = _conv_norm(in_channels, out_channels, stride=stride)
        self.second = _conv_norm(out_channels, out_channels)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else _conv_norm(in_channels, out_channels, stride=stride, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


class SharedMaskPredictor(nn.Module):
    """One mask an object, the same for every class: (N, C, h, w) -> logits (N, num_classes, 2h, 2w).

    With few artworks a category, shape learned over all of them is worth more than a mask a class.
    """

    def __init__(self, channels: int, *, num_classes: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.logits = nn.Conv2d(channels, 1, 1)
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(F.relu(self.upsample(x))).expand(-1, self.num_classes, -1, -1)


class CoarseRpn(RegionProposalNetwork):
    """Proposals from all feature maps but the finest, where anchors would cost most and add nothing."""

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        return super().forward(images, {k: v for k, v in features.items() if k != FINEST}, targets)


def _conv_norm(in_channels: int, out_channels: int, *, stride: int = 1, kernel_size: int = 3) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def targets_from_index_maps(index_maps: Tensor, labels: Tensor, *, min_area_px: int) -> list[dict[str, Tensor]]:
    """Training targets of torchvision's detectors.

    `index_maps` (B, H, W) integer: 0 background, i the i-th object; `labels` (B, M) int64: class of object i at
    [:, i - 1], 0 where there is none. Objects smaller than `min_area_px` are left out.
    """
    num_slots = labels.shape[1]
    slots = torch.arange(1, num_slots + 1, device=index_maps.device)
    masks = index_maps[:, None] == slots[None, :, None, None]  # (B, M, H, W)
    keep = (masks.sum(dim=(2, 3)) >= min_area_px) & (labels > 0)
    columns, rows = masks.any(dim=2).float(), masks.any(dim=3).float()  # (B, M, W), (B, M, H)
    boxes = torch.stack(
        [
            columns.argmax(dim=-1),
            rows.argmax(dim=-1),
            columns.shape[-1] - columns.flip(-1).argmax(dim=-1),
            rows.shape[-1] - rows.flip(-1).argmax(dim=-1),
        ],
        dim=-1,
    ).float()  # (B, M, 4), x0 y0 x1 y1
    return [
        {"boxes": boxes[i, keep[i]], "labels": labels[i, keep[i]], "masks": masks[i, keep[i]].to(torch.uint8)}
        for i in range(len(index_maps))
    ]
