"""Train a MaskFormer on images with label maps; pixels labelled 255 have no influence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import MaskFormerForInstanceSegmentation

from diffground.data.palette import IGNORE
from diffground.errors import UserError
from diffground.runtime.progress import Progress
from diffground.training import LossCurve, shuffled_batches

from .augmentation import random_views
from .maskformer import MaskFormerSegmenter, normalise, resize_image
from .sources import SegmentationSource

_LOSS_STRIDE = 2  # masks are predicted at stride 4; scored at 2 they lose little, and cost a quarter of full size
_MAX_GRADIENT_NORM = 1.0
_WARMUP = 50
_OFF = -100.0  # a logit that is 0 to any loss when the target is 0


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
) -> LossCurve:
    """Train in place with AdamW; the rate rises over 50 iterations, then falls to 0 as a polynomial of power 0.9.

    The pretrained backbone learns at `backbone_lr_factor` times the rate of the fresh heads, so that it keeps what it
    knows. Image order and views depend on `seed` alone. Raises: UserError for a source without images.
    """
    if len(source) == 0:
        raise UserError(f"{description}: there is no training image; see the stage before")
    model, device = segmenter.model, segmenter.device
    generator = torch.Generator().manual_seed(seed)
    backbone = list(model.model.pixel_level_module.encoder.parameters())
    heads = [weight for weight in model.parameters() if all(weight is not other for other in backbone)]
    optimizer = torch.optim.AdamW(
        [{"params": heads, "factor": 1.0}, {"params": backbone, "factor": backbone_lr_factor}],
        lr=learning_rate, weight_decay=weight_decay,
    )  # fmt: skip
    batches = shuffled_batches(len(source), batch_size=batch_size, generator=generator)
    curve = LossCurve()
    model.train()
    with torch.random.fork_rng(devices=[]), Progress(iterations, description=description) as progress:
        torch.manual_seed(seed)  # dropout
        for iteration in range(1, iterations + 1):
            remaining = 1 - (iteration - 1) / iterations
            for group in optimizer.param_groups:
                group["lr"] = group["factor"] * learning_rate * min(1.0, iteration / _WARMUP) * remaining**0.9
            images, labels = load_batch(source, next(batches), image_size=segmenter.image_size)
            images, labels = random_views(images, labels, generator)
            loss = segmentation_loss(model, images.to(device), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRADIENT_NORM)
            optimizer.step()
            curve.add(loss, iteration=iteration, last=iteration == iterations)
            progress.advance()
    model.eval()
    return curve


def load_batch(source: SegmentationSource, indices: list[int], *, image_size: int) -> tuple[Tensor, Tensor]:
    """Images float32 (B, 3, S, S) in 0..1 and labels uint8 (B, S, S), resized to S = `image_size`."""
    images, labels = [], []
    for i in indices:
        image, label = source[i]
        images.append(resize_image(image, image_size))
        resized = F.interpolate(
            torch.from_numpy(label)[None, None].float(), size=(image_size, image_size), mode="nearest-exact"
        )
        labels.append(resized[0, 0].to(torch.uint8))
    return torch.stack(images), torch.stack(labels)


def segmentation_loss(model: MaskFormerForInstanceSegmentation, images: Tensor, labels: Tensor) -> Tensor:
    """MaskFormer's loss (classes, focal and dice of matched masks, after every decoder layer); a scalar.

    Args:
        images: float32 (B, 3, S, S) in 0..1.
        labels: uint8 (B, S, S). Where it is 255, masks are neither matched nor scored.
    """
    scored_labels = labels[:, ::_LOSS_STRIDE, ::_LOSS_STRIDE]  # (B, s, s)
    ignored = scored_labels == IGNORE
    class_labels = [torch.unique(label[label != IGNORE]).long() for label in scored_labels]
    mask_labels = [
        (label[None] == classes[:, None, None]).float()
        for label, classes in zip(scored_labels, class_labels, strict=True)
    ]  # (classes, s, s) each
    loss = torch.zeros((), device=images.device)
    for mask_logits, class_logits in predictions_by_layer(model, images):
        mask_logits = F.interpolate(mask_logits, size=scored_labels.shape[-2:], mode="bilinear", align_corners=False)
        mask_logits = mask_logits.masked_fill(ignored[:, None], _OFF)
        parts = model.get_loss_dict(mask_logits, class_logits, mask_labels, class_labels, None)
        loss = loss + sum(parts.values())
    return loss


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
