"""A Mask R-CNN (He et al. 2017) for images of 64 to 128 px: torchvision's, with a small FPN and small heads."""

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
from transformers import ResNetBackbone, ResNetConfig

FINEST, SECOND, TRUNK = "0", "1", "trunk"
"""Names of feature maps: the FPN's two finest and the ResNet's last. Masks are read from the finest, boxes and classes
from the second and the ResNet's last; anchors lie on the FPN's second and coarser ones. One sample a bin: RoIAlign's
backward pass is serial on a CPU and was a third of a step."""


def build_small_mask_rcnn(
    *,
    num_categories: int,
    image_size: int,
    embedding_size: int,
    hidden_sizes: Sequence[int],
    depths: Sequence[int],
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

    `hidden_sizes` and `depths`: width and number of residual blocks of the stages at stride 4, 8, 16 ….
    `anchor_sizes`: px, one list a stage from the second on.
    """
    backbone = ResNetFpn(
        embedding_size=embedding_size, hidden_sizes=hidden_sizes, depths=depths, out_channels=fpn_channels
    )
    anchors = AnchorGenerator(
        sizes=tuple(tuple(sizes) for sizes in anchor_sizes), aspect_ratios=(tuple(anchor_ratios),) * len(anchor_sizes)
    )
    num_classes = num_categories + 1  # class 0 is background
    model = MaskRCNN(
        backbone,
        min_size=image_size,
        max_size=2 * image_size,
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(fpn_channels, anchors.num_anchors_per_location()[0]),
        box_head=BoxHead(fpn_channels * BoxPool.SIDE**2, box_head_dim),
        box_predictor=FastRCNNPredictor(box_head_dim + hidden_sizes[-1], num_classes),
        mask_roi_pool=MultiScaleRoIAlign([FINEST], output_size=14, sampling_ratio=1),
        mask_head=MaskRCNNHeads(fpn_channels, [mask_head_channels] * mask_head_layers, 1),
        mask_predictor=SharedMaskPredictor(mask_head_channels, num_classes=num_classes),
        box_score_thresh=score_threshold,
        box_nms_thresh=0.5,
        box_detections_per_img=max_instances,
        box_batch_size_per_image=16,
        box_positive_fraction=0.5,
    )
    model.roi_heads.box_roi_pool = BoxPool()
    model.rpn = CoarseRpn(
        anchors,
        model.rpn.head,
        fg_iou_thresh=0.6,
        bg_iou_thresh=0.3,
        batch_size_per_image=64,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 80, "testing": 60},
        post_nms_top_n={"training": 60, "testing": 30},
        nms_thresh=0.7,
    )
    return model


class ResNetFpn(nn.Module):
    """Image (B, 3, H, W) -> {"0": (B, out_channels, H/4, W/4), "1": stride 8, …}, one map a stage of a ResNet (He et
    al. 2016), merged top-down, and "trunk", its last stage as it is, (B, hidden_sizes[-1], h, w). `resnet` may be given
    the weights of one trained to classify."""

    def __init__(
        self, *, embedding_size: int, hidden_sizes: Sequence[int], depths: Sequence[int], out_channels: int
    ) -> None:
        super().__init__()
        self.resnet = ResNetBackbone(
            ResNetConfig(
                embedding_size=embedding_size,
                hidden_sizes=list(hidden_sizes),
                depths=list(depths),
                layer_type="basic",
                out_features=[f"stage{i + 1}" for i in range(len(depths))],
            )
        )
        self.lateral = nn.ModuleList(nn.Conv2d(c, out_channels, 1) for c in hidden_sizes)
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels))
            for _ in hidden_sizes
        )
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.resnet(images).feature_maps
        merged = self.lateral[-1](maps[-1])
        outputs = [F.relu(self.smooth[-1](merged))]
        for i in reversed(range(len(maps) - 1)):
            lateral = self.lateral[i](maps[i])
            merged = lateral + F.interpolate(merged, size=lateral.shape[-2:], mode="nearest")
            outputs.append(F.relu(self.smooth[i](merged)))
        return OrderedDict((str(i), output) for i, output in enumerate(reversed(outputs))) | {TRUNK: maps[-1]}


class BoxPool(nn.Module):
    """Of each box: the second map (N, C, SIDE, SIDE), and the mean of the trunk's map (N, D)."""

    SIDE = 7

    def __init__(self) -> None:
        super().__init__()
        self.fine = MultiScaleRoIAlign([SECOND], output_size=self.SIDE, sampling_ratio=1)
        self.trunk = MultiScaleRoIAlign([TRUNK], output_size=4, sampling_ratio=1)

    def forward(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        return self.fine(features, boxes, image_sizes), self.trunk(features, boxes, image_sizes).mean(dim=(2, 3))


class BoxHead(nn.Module):
    """BoxPool's pair -> (N, dim + D). The trunk's mean goes past the MLP: with tens of classes and few images a class,
    a linear reading of what the trunk was trained to tell apart is learned long before the MLP is."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.mlp = TwoMLPHead(in_dim, dim)

    def forward(self, pooled: tuple[Tensor, Tensor]) -> Tensor:
        fine, trunk = pooled
        return torch.cat([self.mlp(fine), trunk], dim=1)


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
    """Proposals from all maps of the FPN but the finest, where anchors would cost most and add nothing."""

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        return super().forward(images, {k: v for k, v in features.items() if k not in (FINEST, TRUNK)}, targets)


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
