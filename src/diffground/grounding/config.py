"""Section `grounding` of params.yaml: the module and its training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffground.ranges import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class GroundingConfig:
    """The grounding module and its training (paper section 3.3)."""

    reduced_channels: tuple[PositiveInt, ...]
    """Channels after the 1x1 reductions, coarse to fine, one per feature size (paper: 16, 32, 64, 128)."""
    embed_dim: PositiveInt
    """d_e of queries, keys and values (paper: 512)."""
    num_layers: PositiveInt
    """Transformer decoder layers (paper: 3)."""
    num_heads: PositiveInt
    """Attention heads (paper: 8)."""
    ffn_dim: PositiveInt
    """Hidden width of the feed-forward layers (paper: 2048)."""
    patch_size: PositiveInt
    """Side of the patches of the fused map that are the visual tokens (paper: 4)."""
    tokens_at: Literal["features", "image"]
    """'features' takes patches of the fused map (released code), 'image' of the map upsampled to image size (paper)."""
    branches: Literal["conditional", "both"]
    """'conditional' reads the prompt's UNet pass, 'both' adds the unconditional one (released code)."""
    word_attention: bool
    """Also read the cross-attention maps of each category's words in the prompt (off in the paper)."""
    gain_timesteps: tuple[NonNegativeInt, ...]
    """With word_attention: timesteps, 0..999, at which each word's denoising gain is also read; empty: none."""
    query_noise: NonNegativeFloat
    """Standard deviation of Gaussian noise on the text embeddings in training, relative to their own (paper: 0)."""
    text_drop: Fraction
    """With word_attention: chance that a query's mask is made without its text in training, 0..1 (paper: 0)."""
    training_data: Literal["sim", "real", "both"]
    """'sim': generated images with the detector's masks (paper); 'real': real training images of `inversion` with the
    labels of seen categories; 'both'."""
    training_type: Literal["without_zero_masks", "normal"]
    """'without_zero_masks' ignores categories that the detector did not find, 'normal' trains on an empty mask."""
    iterations: PositiveInt
    """Optimizer steps (paper: 5,000)."""
    batch_size: PositiveInt
    """Samples per step (paper: 8)."""
    gradient_accumulation_steps: PositiveInt
    """Equal parts of each process's share of a batch, one after another: less memory; batch norm sees one part."""
    mixed_precision: Literal["none", "bf16", "fp16"]
    """What the module computes in while it is trained: 'none' (float32), 'bf16' or 'fp16' (GPU only)."""
    learning_rate: PositiveFloat
    """Adam (paper: 1e-4)."""
    weight_decay: NonNegativeFloat
    """Adam (paper: 1e-4)."""
    decay_frac: Fraction
    """Share of the iterations at the end over which the learning rate falls linearly to 0, 0..1 (paper: 0)."""
    mask_threshold: Fraction
    """Probability from which a pixel belongs to a category, 0..1."""
    resolve_overlaps: bool
    """Whether Protocol I scores disjoint masks: a pixel belongs to its likeliest category only, as in synthetic label
    maps. false: to each category that reaches the threshold (paper)."""
    seed: NonNegativeInt
    """Seed of initialisation and sample order."""
