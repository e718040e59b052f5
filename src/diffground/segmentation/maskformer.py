"""MaskFormer (Cheng et al. 2021): transformers' model as a Segmenter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, ResNetBackbone
from transformers.utils import logging as transformers_logging

from diffground.atomic import atomic_file, write_atomically
from diffground.errors import UserError, in_one_line
from diffground.runtime.batches import in_batches
from diffground.runtime.fingerprint import is_hub_id

GROUPS = 32
"""transformers normalises the pixel decoder in this many groups of channels."""
MIN_IMAGE_SIZE = 64
"""px; at half of it the coarsest map of a ResNet (stride 32) is one pixel, which cannot be normalised in groups."""
MEAN, STD = 0.5, 0.25
"""Subtracted from every channel, 0..1, and then its divisor."""
_CONFIG, _WEIGHTS, _CARD = "config.json", "model.safetensors", "README.md"


class MaskFormerSegmenter:
    """Background is a class like the others (label 0); one image's scores do not depend on its batch."""

    def __init__(
        self,
        model: MaskFormerForInstanceSegmentation,
        *,
        categories: Sequence[str],
        image_size: int,
        device: torch.device,
        batch_size: int = 16,
    ) -> None:
        """`model` has 1 + len(categories) labels; images are resized to `image_size` squared for it.

        Raises: UserError for an image size below MIN_IMAGE_SIZE.
        """
        if image_size < MIN_IMAGE_SIZE:
            raise UserError(f"segmenter.image_size must be at least {MIN_IMAGE_SIZE} px, got {image_size}")
        self.model = model.to(device, memory_format=torch.channels_last)  # convolutions are faster, on a CPU too
        self.image_size = image_size
        self.device = device
        self._categories = tuple(categories)
        self._batch_size = batch_size

    @property
    def categories(self) -> tuple[str, ...]:
        return self._categories

    @torch.no_grad()
    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """uint8 (H, W, 3), sizes may differ -> scores float32 (K + 1, H, W) of each: class probability times mask
        probability, summed over the queries (equation 3 of the MaskFormer paper, null class left out).

        Raises: InfrastructureError and UserError as in_batches does.
        """
        self.model.eval()
        batches = in_batches(
            images,
            self._predict,
            batch_size=self._batch_size,
            setting="segmenter",
            lower="the size of the image or segmenter.image_size",
        )
        return [scores for _, of_batch in batches for scores in of_batch]

    def _predict(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        inputs = torch.stack([resize_image(image, self.image_size) for image in batch]).to(self.device)
        outputs = self.model(pixel_values=normalise(inputs))
        classes = outputs.class_queries_logits.softmax(dim=-1)[..., :-1]  # (B, Q, K + 1)
        scores = []
        for image, of_query, masks in zip(batch, classes, outputs.masks_queries_logits, strict=True):
            masks = F.interpolate(masks[None], size=image.shape[:2], mode="bilinear", align_corners=False)[0]
            scores.append(torch.einsum("qc,qhw->chw", of_query, masks.sigmoid()).cpu().numpy())
        return scores

    def save(self, folder: Path, *, card: str) -> None:
        """Write model.safetensors, README.md and, last, config.json; each atomically."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        with atomic_file(folder / _WEIGHTS) as partial:
            save_file(tensors, partial, metadata={"format": "pt"})
        config = {
            "categories": list(self._categories),
            "image_size": self.image_size,
            "maskformer": self.model.config.to_dict(),
        }
        write_atomically(folder / _CARD, card)
        write_atomically(folder / _CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path, *, device: torch.device) -> MaskFormerSegmenter:
        """Raises: UserError when the folder lacks a file, or its files are damaged or do not fit each other."""
        for name in (_CONFIG, _WEIGHTS):
            if not (folder / name).is_file():
                raise UserError(f"{folder}: no segmenter ({name} is missing); run `dvc repro train_maskformer`")
        try:
            config = json.loads((folder / _CONFIG).read_text())
            model = MaskFormerForInstanceSegmentation(MaskFormerConfig.from_dict(config["maskformer"]))
            model.load_state_dict(load_file(folder / _WEIGHTS))
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            raise UserError(
                f"{folder}: not a complete segmenter ({reason}); run `dvc repro -f train_maskformer`"
            ) from None
        return cls(model, categories=config["categories"], image_size=config["image_size"], device=device)


def build_maskformer(
    *,
    backbone: str,
    num_labels: int,
    matching: str,
    hidden_dim: int,
    num_queries: int,
    decoder_layers: int,
    ffn_dim: int,
) -> MaskFormerForInstanceSegmentation:
    """MaskFormer with fresh heads (drawn from torch's global generator) on a pretrained ResNet.

    Args:
        backbone: folder or hub id of a transformers ResNet (safetensors).
        num_labels: with background.
        matching: 'bipartite', or 'fixed', which has one query per label whatever `num_queries` is (MaskFormer-fixed).
    Raises: UserError for a backbone that is missing, pickled or no ResNet, and for a width that cannot be normalised.
    """
    if hidden_dim % GROUPS:
        raise UserError(f"segmenter.hidden_dim must be a multiple of {GROUPS} (group norm), got {hidden_dim}")
    pretrained = _load_backbone(backbone)
    config = MaskFormerConfig(
        backbone_config=pretrained.config,
        decoder_config=DetrConfig(
            backbone_config=pretrained.config,
            num_queries=num_labels if matching == "fixed" else num_queries,
            d_model=hidden_dim,
            encoder_layers=0,
            decoder_layers=decoder_layers,
            decoder_ffn_dim=ffn_dim,
            encoder_ffn_dim=ffn_dim,
            encoder_attention_heads=8,
            decoder_attention_heads=8,
            dropout=0.1,
        ),
        fpn_feature_size=hidden_dim,
        mask_feature_size=hidden_dim,
        num_labels=num_labels,
    )
    model = MaskFormerForInstanceSegmentation(config)
    if matching == "fixed":
        model.criterion.matcher = FixedMatcher()
    _init_as_published(model)
    model.model.pixel_level_module.encoder.load_state_dict(pretrained.state_dict())
    return model


class FixedMatcher(torch.nn.Module):
    """Query i is for label i ("MaskFormer-fixed"). Without the search for an assignment, which changes often at
    first, categories are separated after a tenth of the iterations."""

    def forward(
        self, _masks: Tensor, _classes: Tensor, _mask_labels: list[Tensor], class_labels: list[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """For each image: the queries of its labels (N,), and their places among its masks (N,)."""
        return [(labels, torch.arange(len(labels), device=labels.device)) for labels in class_labels]


def _init_as_published(model: MaskFormerForInstanceSegmentation) -> None:
    """The MaskFormer authors' initialisation of queries and decoder.

    transformers draws both with standard deviation 0.02: queries then start out nearly equal, and training takes many
    more iterations until they differ.
    """
    transformer = model.model.transformer_module
    torch.nn.init.normal_(transformer.queries_embedder.weight)
    for weight in transformer.decoder.parameters():
        if weight.ndim > 1:
            torch.nn.init.xavier_uniform_(weight)


def resize_image(image: np.ndarray, size: int) -> Tensor:
    """uint8 (H, W, 3) -> float32 (3, size, size) in 0..1, bilinear with antialiasing."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    if tensor.shape[-2:] != (size, size):
        tensor = F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return tensor[0]


def normalise(images: Tensor) -> Tensor:
    """0..1 -> what the network reads."""
    return (images - MEAN) / STD


def _load_backbone(name: str) -> ResNetBackbone:
    key = f"segmenter.backbone '{name}'"
    folder = Path(name)
    if folder.is_dir() and not (folder / _WEIGHTS).is_file():
        raise UserError(f"{key}: the folder has no {_WEIGHTS} (pickles are never loaded); run `git checkout -- models`")
    if not folder.is_dir() and not is_hub_id(name):
        raise UserError(f"{key}: no such folder, and not a hub id; run `git checkout -- models` or see pretrain/")
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type != "resnet":
            raise UserError(f"{key} must be a ResNet, got model type '{config.model_type}'")
        return ResNetBackbone.from_pretrained(
            name,
            out_features=[f"stage{i + 1}" for i in range(len(config.depths))],
            use_safetensors=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = in_one_line(error)
        raise UserError(f"{key} does not load as a transformers ResNet: {reason}") from error
