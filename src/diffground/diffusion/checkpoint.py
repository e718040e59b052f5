"""Loading a Stable Diffusion 1.x, 2.x or XL pipeline: from a folder or the hub, safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from diffground.errors import UserError, in_one_line
from diffground.model_folders import check_pipeline_folder
from diffground.runtime.fingerprint import checkpoint_fingerprint

_NEEDED = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
_SECOND_ENCODER = ("text_encoder_2", "CLIPTextModelWithProjection")
_FAMILY = "take a Stable Diffusion 1.x, 2.x or XL pipeline"


def load_pipeline(checkpoint: str, *, dtype: torch.dtype) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """Read the pipeline at `checkpoint`, a folder or a hub id, without its safety checker; XL if it has two encoders.

    Raises: UserError when there is none, when it has pickled weights only, and when it is no Stable Diffusion pipeline
    or one that needs more than a prompt (inpainting, upscaling).
    """
    check_pipeline_folder(checkpoint)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        has_two = _has_two_encoders(DiffusionPipeline.load_config(checkpoint), checkpoint)
        if has_two:
            pipeline = StableDiffusionXLPipeline.from_pretrained(checkpoint, dtype=dtype, use_safetensors=True)
        else:
            pipeline = StableDiffusionPipeline.from_pretrained(
                checkpoint, dtype=dtype, use_safetensors=True, safety_checker=None, requires_safety_checker=False
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = in_one_line(error)
        raise UserError(f"{_name(checkpoint)} does not load as a Stable Diffusion pipeline: {reason}") from error
    _check_inputs(pipeline, checkpoint, conditioning="text_time" if has_two else None)
    if has_two and dtype == torch.float16 and pipeline.vae.config.force_upcast:
        pipeline.vae.to(torch.float32)  # XL's decoder overflows in float16
    return pipeline


def generator_id(checkpoint: str) -> str:
    """The name of the generator that a module belongs to: for a folder, 16 hexadecimal digits computed from its
    content; for a hub id, the id.
    """
    return checkpoint_fingerprint(checkpoint)[:16] if Path(checkpoint).exists() else checkpoint


def _has_two_encoders(index: dict[str, Any], checkpoint: str) -> bool:
    """Whether `index` (model_index.json) is that of an XL pipeline. Raises: UserError when it is of neither kind."""
    classes = {part: entry[1] for part, entry in index.items() if isinstance(entry, (list, tuple)) and len(entry) == 2}
    for part, needed in _NEEDED.items():
        if classes.get(part) != needed:
            raise UserError(
                f"{_name(checkpoint)} is a {index.get('_class_name')}, whose {part} must be {needed}, "
                f"got {classes.get(part) or 'none'}; {_FAMILY}"
            )
    part, needed = _SECOND_ENCODER
    return classes.get(part) == needed


def _check_inputs(pipeline: DiffusionPipeline, checkpoint: str, *, conditioning: str | None) -> None:
    """Raises: UserError when the UNet reads anything other than latents and prompts."""
    unet, num_latents = pipeline.unet.config, pipeline.vae.config.latent_channels
    if unet.in_channels != num_latents or unet.addition_embed_type != conditioning:
        raise UserError(
            f"{_name(checkpoint)}: its UNet must read {num_latents} latent channels and "
            f"addition_embed_type {conditioning}, got {unet.in_channels} and {unet.addition_embed_type}; {_FAMILY}"
        )


def _name(checkpoint: str) -> str:
    return f"generator.checkpoint '{checkpoint}'"
