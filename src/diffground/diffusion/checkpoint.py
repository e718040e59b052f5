"""Loading a Stable Diffusion pipeline: from a folder or the hub, safetensors only."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from diffground.errors import UserError

_CONVERT = "load it where you trust it with diffusers and write it with save_pretrained(folder)"
_PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def load_pipeline(checkpoint: str, *, dtype: torch.dtype) -> StableDiffusionPipeline:
    """Read the pipeline at `checkpoint`, a folder or a hub id, without its safety checker.

    Raises: UserError when there is none, when it has pickled weights only, or when it is no Stable Diffusion pipeline.
    """
    folder = Path(checkpoint)
    _check(folder, checkpoint)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        return StableDiffusionPipeline.from_pretrained(
            checkpoint, dtype=dtype, use_safetensors=True, safety_checker=None, requires_safety_checker=False
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{_name(checkpoint)} does not load as a Stable Diffusion pipeline: {reason}") from error


def _name(checkpoint: str) -> str:
    return f"generator.checkpoint '{checkpoint}'"


def _check(folder: Path, checkpoint: str) -> None:
    name = _name(checkpoint)
    if folder.is_file():
        raise UserError(f"{name} is a file, must be a diffusers pipeline folder or hub id; {_CONVERT}")
    if not folder.exists():
        if checkpoint.count("/") == 1 and not checkpoint.startswith((".", "/", "models/")):
            return  # "owner/name" that is no folder here is a hub id
        raise UserError(f"{name}: no such folder; restore it or set a diffusers pipeline folder or hub id")
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{name} has no model_index.json; give a diffusers pipeline folder or hub id")
    for part in ("unet", "vae", "text_encoder"):
        files = [file.name for file in (folder / part).glob("*")]
        pickled = sorted(file for file in files if file.endswith(_PICKLED))
        if pickled and not any(file.endswith(".safetensors") for file in files):
            raise UserError(
                f"{name}: {part} has pickled weights only ({', '.join(pickled)}), must have safetensors; {_CONVERT}"
            )
