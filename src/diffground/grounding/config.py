"""Section `grounding` of params.yaml: the module and its training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroundingConfig:
    """The grounding module and its training (paper section 3.3, DESIGN section 5)."""

    reduced_channels: tuple[int, ...]
    """Channels after the 1x1 reductions, coarse to fine, one a feature size (paper: 16, 32, 64, 128)."""
    embed_dim: int
    """d_e of queries, keys and values (paper: 512)."""
    num_layers: int
    """Transformer decoder layers (paper: 3)."""
    num_heads: int
    """Attention heads (paper: 8)."""
    ffn_dim: int
    """Hidden width of the feed-forward layers (paper: 2048)."""
    patch_size: int
    """Side of the patches of the fused map that are the visual tokens (paper: 4)."""
    tokens_at: str
    """'features' takes patches of the fused map (released code), 'image' of the map upsampled to image size (paper)."""
    branches: str
    """'conditional' reads the prompt's UNet pass, 'both' adds the unconditional one (released code)."""
    word_attention: bool
    """Also read the cross-attention maps of each category's words in the prompt (off in the paper)."""
    gain_timesteps: tuple[int, ...]
    """With word_attention: timesteps, 0..999, at which each word's denoising gain is read too; empty: not at all."""
    query_noise: float
    """Standard deviation of Gaussian noise on the text embeddings in training, relative to their own (paper: 0)."""
    text_drop: float
    """With word_attention: chance that a query's mask is made without its text in training, 0..1 (paper: 0)."""
    training_data: str
    """'sim': generated images with the detector's masks (paper); 'real': real training images of `inversion` with the
    labels of seen categories; 'both'."""
    training_type: str
    """'without_zero_masks' ignores categories that the detector did not find, 'normal' trusts it fully."""
    iterations: int
    """Optimizer steps (paper: 5,000)."""
    batch_size: int
    """Samples a step (paper: 8)."""
    gradient_accumulation_steps: int
    """Equal parts of each process's share of a batch, one after another: less memory; batch norm sees one part."""
    mixed_precision: str
    """What the module computes in while it is trained: 'none' (float32), 'bf16' or 'fp16' (GPU only)."""
    learning_rate: float
    """Adam (paper: 1e-4)."""
    weight_decay: float
    """Adam (paper: 1e-4)."""
    decay_frac: float
    """Share of the iterations at the end over which the learning rate falls linearly to 0, 0..1 (paper: 0)."""
    mask_threshold: float
    """Probability from which a pixel belongs to a category, 0..1."""
    seed: int
    """Seed of initialisation and sample order."""
