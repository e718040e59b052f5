"""Train a MaskFormer on images with label maps; pixels labelled 255 have no influence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MaskFormerForInstanceSegmentation

from diffground.data.palette import IGNORE
from diffground.errors import UserError
from diffground.segmentation.augmentation import Views, apply_views, draw_views
from diffground.segmentation.maskformer import MaskFormerSegmenter, normalise, resize_image
from diffground.segmentation.sources import SegmentationSource
from diffground.training.loop import Execution, LossCurve, Task, train

_LOSS_STRIDE = 2  # masks are predicted at stride 4; scored at 2 they lose little, and cost a quarter of full size
_MAX_GRADIENT_NORM = 1.0
_WARMUP = 50
MAX_CACHE_BYTES = 2**30
"""Resized images of a training set up to this size are kept in memory."""
_OFF = -100.0  # a logit that is 0 to any loss when the target is 0


@dataclass(frozen=True)
class Part:
    """Some images of a batch: `images` float32 (b, 3, S, S) in 0..1, `labels` uint8 (b, S, S)."""

    images: Tensor
    labels: Tensor


class ViewsTask(Task):
    """Random views of a source's images. Two terms: the mean over masks, and that over queries, weighted by class."""

    def __init__(self, model: nn.Module, source: SegmentationSource, *, image_size: int, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self._device = device
        self._source = ResizedSource(source, image_size=image_size)

    def draw(self, indices: list[int], generator: torch.Generator) -> tuple[list[int], Views]:
        return indices, draw_views(len(indices), generator)

    def load(self, drawn: tuple[list[int], Views], rows: slice) -> Part:
        indices, views = drawn
        images, labels = apply_views(*self._source.batch(indices[rows]), views[rows])
        return Part(images.to(self._device), labels.to(self._device))


class SegmenterTask(ViewsTask):
    """transformers' network with its matching and loss."""

    model: MaskFormerForInstanceSegmentation

    def count(self, part: Part) -> Tensor:
        return count_targets(self.model, part.labels)

    def forward(self, part: Part, totals: Tensor) -> Tensor:
        return segmentation_loss(self.model, part.images, part.labels, totals=totals)


def train_segmenter(
    segmenter: MaskFormerSegmenter,
    source: SegmentationSource,
    *,
    iterations: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    backbone_lr_factor: float = 1.0,
    description: str = "train_maskformer",
    execution: Execution | None = None,
) -> LossCurve:
    """Train in place. Image order and views depend only on `seed`. Raises: UserError as `train_task`."""
    task = SegmenterTask(segmenter.model, source, image_size=segmenter.image_size, device=segmenter.device)
    return train_task(
        task,
        backbone=segmenter.model.model.pixel_level_module.encoder,
        num_samples=len(source),
        iterations=iterations,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        device=segmenter.device,
        backbone_lr_factor=backbone_lr_factor,
        description=description,
        execution=execution,
    )


def train_task(
    task: ViewsTask,
    *,
    backbone: nn.Module,
    num_samples: int,
    iterations: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    device: torch.device,
    backbone_lr_factor: float,
    description: str,
    execution: Execution | None = None,
) -> LossCurve:
    """Train in place with AdamW; the rate rises over 50 iterations, then falls to 0 as a polynomial of power 0.9.

    The pretrained `backbone` learns at `backbone_lr_factor` times the rate of the fresh heads, so that it keeps what it
    knows. Raises: UserError for a source without images, or as `train`.
    """
    if num_samples == 0:
        raise UserError(f"{description}: there is no training image; see the stage before")
    pretrained = list(backbone.parameters())
    heads = [weight for weight in task.parameters() if all(weight is not other for other in pretrained)]
    optimizer = torch.optim.AdamW(
        [{"params": heads, "factor": 1.0}, {"params": pretrained, "factor": backbone_lr_factor}],
        lr=learning_rate,
        weight_decay=weight_decay,
        fused=True,
    )

    def set_rates(iteration: int) -> None:
        remaining = 1 - (iteration - 1) / iterations
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate * min(1.0, iteration / _WARMUP) * remaining**0.9

    return train(
        task,
        optimizer,
        set_rates=set_rates,
        num_samples=num_samples,
        iterations=iterations,
        batch_size=batch_size,
        seed=seed,
        device=device,
        description=description,
        max_gradient_norm=_MAX_GRADIENT_NORM,
        execution=execution,
    )


class ResizedSource:
    """The samples of a source at the network's size, S = `image_size`.

    Each is decoded and resized once, as far as all fit into `max_cache_bytes` of memory.
    """

    def __init__(self, source: SegmentationSource, *, image_size: int, max_cache_bytes: int = MAX_CACHE_BYTES) -> None:
        self._source, self._image_size, self._bytes_left = source, image_size, max_cache_bytes
        self._cache: dict[int, tuple[Tensor, Tensor]] = {}

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images float32 (B, 3, S, S) in 0..1 and labels uint8 (B, S, S)."""
        images, labels = zip(*map(self._sample, indices), strict=True)
        return torch.stack(images), torch.stack(labels)

    def _sample(self, i: int) -> tuple[Tensor, Tensor]:
        if i in self._cache:
            return self._cache[i]
        image, label = self._source[i]
        size = (self._image_size, self._image_size)
        resized = F.interpolate(torch.from_numpy(label)[None, None].float(), size=size, mode="nearest-exact")
        sample = resize_image(image, self._image_size), resized[0, 0].to(torch.uint8)
        num_bytes = sum(tensor.nbytes for tensor in sample)
        if num_bytes <= self._bytes_left:
            self._bytes_left -= num_bytes
            self._cache[i] = sample
        return sample


def segmentation_loss(
    model: MaskFormerForInstanceSegmentation, images: Tensor, labels: Tensor, *, totals: Tensor | None = None
) -> Tensor:
    """MaskFormer's loss (classes, focal and dice of matched masks, after every decoder layer); a scalar.

    Args:
        images: float32 (B, 3, S, S) in 0..1.
        labels: uint8 (B, S, S). Where it is 255, masks are neither matched nor scored.
        totals: `count_targets` of the whole batch that this is a part of, to get its share of that batch's loss; None:
            this is the batch.
    """
    counts = count_targets(model, labels)
    totals = counts if totals is None else totals
    num_masks, share_of_queries = totals[0].clamp(min=1), counts[1] / totals[1]
    scored_labels = _scored(labels)
    ignored = scored_labels == IGNORE
    class_labels = _classes(scored_labels)
    mask_labels = [
        (label[None] == classes[:, None, None]).float()
        for label, classes in zip(scored_labels, class_labels, strict=True)
    ]  # (classes, s, s) each
    criterion = model.criterion
    predictions = predictions_by_layer(model, images)
    loss = torch.zeros((), device=images.device)
    with torch.autocast(images.device.type, enabled=False):
        for mask_logits, class_logits in predictions:
            mask_logits, class_logits = mask_logits.float(), class_logits.float()
            mask_logits = F.interpolate(
                mask_logits, size=scored_labels.shape[-2:], mode="bilinear", align_corners=False
            )
            mask_logits = mask_logits.masked_fill(ignored[:, None], _OFF)
            matched = criterion.matcher(mask_logits, class_logits, mask_labels, class_labels)
            parts = criterion.loss_masks(mask_logits, mask_labels, matched, num_masks)
            of_classes = criterion.loss_labels(class_logits, class_labels, matched)
            parts |= {name: part * share_of_queries for name, part in of_classes.items()}
            loss = loss + sum(part * model.weight_dict[name] for name, part in parts.items())
    return loss


def count_targets(model: MaskFormerForInstanceSegmentation, labels: Tensor) -> Tensor:
    """Over what the terms of the loss are means: masks; queries, those without a mask by their weight. float (2,)."""
    num_queries = model.config.decoder_config.num_queries
    nums = [len(classes) for classes in _classes(_scored(labels))]
    num_matched = sum(min(num, num_queries) for num in nums)
    num_unmatched = len(nums) * num_queries - num_matched
    weighted = num_matched + num_unmatched * model.criterion.eos_coef
    return torch.tensor([sum(nums), weighted], dtype=torch.float32, device=labels.device)


def _scored(labels: Tensor) -> Tensor:
    return labels[:, ::_LOSS_STRIDE, ::_LOSS_STRIDE]  # (B, s, s)


def _classes(scored_labels: Tensor) -> list[Tensor]:
    """The labels in each image, int64, without 255."""
    return [torch.unique(label[label != IGNORE]).long() for label in scored_labels]


def predictions_by_layer(model: MaskFormerForInstanceSegmentation, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mask logits (B, Q, S / 4, S / 4), class logits (B, Q, labels + 1) of the last decoder layer, then of the others.

    The decoder's final norm is applied to every layer's state, as in DETR and MaskFormer; transformers' own auxiliary
    outputs leave it out and count the state before the first layer as one.
    """
    decoder = model.model.transformer_module.decoder
    states: list[Tensor] = []

    def keep(_layer: torch.nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_hook(keep) for layer in decoder.layers[:-1]]
    try:
        outputs = model(pixel_values=normalise(images), output_hidden_states=True)
    finally:
        for hook in hooks:
            hook.remove()
    predictions = [(outputs.masks_queries_logits, outputs.class_queries_logits)]
    for state in map(decoder.layernorm, states):  # (B, Q, D)
        embeddings = model.mask_embedder(state)
        masks = torch.einsum("bqc,bchw->bqhw", embeddings, outputs.pixel_decoder_last_hidden_state)
        predictions.append((masks, model.class_predictor(state)))
    return predictions
