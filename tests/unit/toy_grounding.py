"""A grounding module with random weights for a tiny real generator."""

from __future__ import annotations

from pathlib import Path

import torch

from diffground.diffusion.generator import Generator
from diffground.grounding.checkpoint import GroundingSpec, Sampling, save_grounding


def save_toy_grounding(
    folder: Path, generator: Generator, *, generator_id: str, timestep: int, sampling: Sampling
) -> Path:
    """Write the model folder and return it. Always the same weights."""
    spec = GroundingSpec(
        feature_channels=generator.feature_channels(),
        text_dim=generator.text_dim,
        num_attention_maps=generator.num_attention_maps,
        reduced_channels=(4, 4, 8),
        embed_dim=16,
        num_layers=1,
        num_heads=2,
        ffn_dim=16,
        patch_size=1,
        tokens_at="features",
        branches="conditional",
        gain_timesteps=(),
        generator_id=generator_id,
        image_size=generator.image_size,
        timestep=timestep,
        sampling=sampling,
    )
    torch.manual_seed(0)
    save_grounding(folder, spec.build(), spec, card="")
    return folder
