"""Section `segmenter` of params.yaml: MaskFormer and its training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffground.errors import UserError
from diffground.ranges import Fraction, NonEmptyStr, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

TrainingSet = Literal["synthetic", "synthetic_and_real_seen", "real_seen_only", "text2mask", "real_all"]


@dataclass(frozen=True)
class SegmenterConfig:
    """MaskFormer and its training (paper section 4.1)."""

    training_sets: tuple[TrainingSet, ...]
    """One MaskFormer each: 'synthetic' (Models A to C of the paper's table 2), 'synthetic_and_real_seen' (D and E),
    'real_seen_only' (without this method), 'text2mask' (the baseline's label maps; they use the image-level labels of
    real images, those of unseen categories too), 'real_all' (upper bound)."""
    min_quality: Fraction
    """Synthetic images of a lower quality are not used, 0..1; 0: all are (see diffground.grounding.quality)."""
    backbone: NonEmptyStr
    """Folder or hub id of a transformers ResNet."""
    image_size: PositiveInt
    """Side of the square training crop and evaluation input, px (paper: 224)."""
    matching: Literal["bipartite", "fixed"]
    """'bipartite' (MaskFormer), or 'fixed': query i is for label i (MaskFormer-fixed), with far fewer iterations."""
    hidden_dim: PositiveInt
    """Width of pixel decoder and transformer decoder (MaskFormer: 256)."""
    num_queries: PositiveInt
    """Mask queries (MaskFormer: 100); with fixed matching there is one per label, whatever this value."""
    decoder_layers: PositiveInt
    """Transformer decoder layers (MaskFormer: 6)."""
    ffn_dim: PositiveInt
    """Hidden width of the decoder's feed-forward layers (MaskFormer: 2048)."""
    iterations: PositiveInt
    """Optimizer steps (paper: 40,000)."""
    batch_size: PositiveInt
    """Images per step (paper: 8)."""
    gradient_accumulation_steps: PositiveInt
    """Equal parts of each process's share of a batch, one after another: less memory; batch norm sees one part."""
    mixed_precision: Literal["none", "bf16", "fp16"]
    """What the model computes in while it is trained: 'none' (float32), 'bf16' or 'fp16' (GPU only)."""
    learning_rate: PositiveFloat
    """AdamW (paper: 1e-4)."""
    backbone_lr_factor: NonNegativeFloat
    """Learning rate of the pretrained backbone relative to that of the rest (MaskFormer: 0.1)."""
    weight_decay: NonNegativeFloat
    """AdamW (paper: 1e-4)."""
    seed: NonNegativeInt
    """Seed of initialisation and sample order."""
    backend: Literal["transformers", "official"] = "transformers"
    """Whose network, matching and loss are trained: those of 'transformers', or the authors' ('official'; install
    detectron2 and their MaskFormer). Both write the same model folders, which are evaluated in the same way."""


def check_backend(config: SegmenterConfig) -> None:
    """Raises: UserError for settings that the backend does not have."""
    if config.backend == "transformers":
        return
    for key, value, only in (
        ("matching", config.matching, "bipartite"),
        ("mixed_precision", config.mixed_precision, "none"),
    ):
        if value != only:
            raise UserError(f"segmenter.{key} must be '{only}' where segmenter.backend is 'official', got '{value}'")
