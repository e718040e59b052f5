"""Latents of the generator's training scenes, kept on disk for a resumed training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import BASE_VAE, scene_moments
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffground.atomic import atomic_file

_ENCODED_AT_ONCE = 128


def latents_key(params: dict[str, Any], vae: AutoencoderKL, *, sprites: Path) -> str:
    """All that the latents of the training scenes depend on."""
    digests = [
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (sprites, BASE_VAE / "diffusion_pytorch_model.safetensors")
    ]
    return json.dumps([params["seed"], params["image_size"], params["scenes"], vae.config.scaling_factor, digests])


def read_latents(path: Path, key: str) -> tuple[Tensor, list[str]] | None:
    """What `write_latents` wrote; None where there is nothing, or something of another key."""
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        if file.metadata()["key"] != key:
            return None
        return file.get_tensor("latents"), json.loads(file.metadata()["captions"])


def write_latents(path: Path, key: str, latents: Tensor, captions: list[str]) -> None:
    with atomic_file(path, sync=False) as partial:  # gigabytes that can be made again
        save_file(
            {"latents": latents.cpu().contiguous()}, partial, metadata={"key": key, "captions": json.dumps(captions)}
        )


def encode_scenes(scenes: Iterable[tuple[np.ndarray, str]], vae: AutoencoderKL) -> tuple[Tensor, list[str]]:
    """Scaled latents float32 (N, C, h, w) on the device of `vae`, and captions.

    `scenes`: images uint8 (S, S, 3) with their captions. Only one batch of them is in memory.
    """
    latents, captions = [], []
    remaining = iter(scenes)
    while batch := list(islice(remaining, _ENCODED_AT_ONCE)):
        images, words = zip(*batch, strict=True)
        latents.append(scene_moments(np.stack(images), vae).chunk(2, dim=1)[0])
        captions += words
    return torch.cat(latents) * vae.config.scaling_factor, captions
