"""Section `segmenter` of params.yaml: MaskFormer and its training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SegmenterConfig:
    """MaskFormer and its training (paper section 4.1)."""

    training_sets: tuple[str, ...]
    """One MaskFormer each: 'synthetic' (Models A to C of the paper's table 2), 'synthetic_and_real_seen' (D and E),
    'real_seen_only' (without this method), 'text2mask' (the baseline's label maps; it is told which categories, unseen
    ones too, a real image shows), 'real_all' (upper bound)."""
    backbone: str
    """Folder or hub id of a transformers ResNet."""
    image_size: int
    """Side of the square training crop and evaluation input, px (paper: 224)."""
    matching: str
    """'bipartite' (MaskFormer), or 'fixed': query i is for label i (MaskFormer-fixed), with far fewer iterations."""
    hidden_dim: int
    """Width of pixel decoder and transformer decoder (MaskFormer: 256)."""
    num_queries: int
    """Mask queries (MaskFormer: 100); with fixed matching there is one a label, whatever this is."""
    decoder_layers: int
    """Transformer decoder layers (MaskFormer: 6)."""
    ffn_dim: int
    """Hidden width of the decoder's feed-forward layers (MaskFormer: 2048)."""
    iterations: int
    """Optimizer steps (paper: 40,000)."""
    batch_size: int
    """Images a step (paper: 8)."""
    gradient_accumulation_steps: int
    """Equal parts of each process's share of a batch, one after another: less memory; batch norm sees one part."""
    mixed_precision: str
    """What the model computes in while it is trained: 'none' (float32), 'bf16' or 'fp16' (GPU only)."""
    learning_rate: float
    """AdamW (paper: 1e-4)."""
    backbone_lr_factor: float
    """Learning rate of the pretrained backbone relative to that of the rest (MaskFormer: 0.1)."""
    weight_decay: float
    """AdamW (paper: 1e-4)."""
    seed: int
    """Seed of initialisation and sample order."""
