"""Loading a Stable Diffusion 1.x, 2.x or XL pipeline: from a folder, the hub or a single file, safetensors only."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from diffground.diffusion.lora import add_lora
from diffground.diffusion.schedule import check_scheduler
from diffground.diffusion.single_file import load_single_file
from diffground.errors import UserError, in_one_line
from diffground.model_folders import PIPELINE_PARTS, check_pipeline_folder
from diffground.runtime.fingerprint import generator_fingerprint, parse_lora

_NEEDED = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
_SECOND_ENCODER = ("text_encoder_2", "CLIPTextModelWithProjection")
_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|model)(\.(?P<variant>[a-z]\w*))?(-\d+-of-\d+)?\.safetensors", re.IGNORECASE
)
_FAMILY = "take a Stable Diffusion 1.x, 2.x or XL pipeline"


def load_pipeline(
    checkpoint: str, *, dtype: torch.dtype, config_from: str = "", loras: Sequence[str] = ()
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """Read the pipeline at `checkpoint`, a folder, a hub id or a single file, without its safety checker; XL if it has
    two encoders. Parts of a folder of which only a variant is there (`*.fp16.safetensors`) are read from the variant.

    config_from: for a single file, the pipeline folder with its configs, tokenizer and scheduler. loras: 'FILE' or
    'FILE:SCALE', added to the weights.
    Raises: UserError when there is none, when it has pickled weights only, when it is no Stable Diffusion pipeline
    or one that needs more than a prompt (inpainting, upscaling), when its scheduler has no noise schedule of diffusion,
    and for LoRAs that do not fit.
    """
    check_pipeline_folder(checkpoint, config_from=config_from, loras=loras)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        index = DiffusionPipeline.load_config(config_from or checkpoint)
        has_two = _has_two_encoders(index, config_from or checkpoint)
        if config_from:
            pipeline = load_single_file(Path(checkpoint), config_from=Path(config_from), is_xl=has_two, dtype=dtype)
        else:
            parts = _variant_parts(Path(checkpoint), index, dtype=dtype)
            if has_two:
                pipeline = StableDiffusionXLPipeline.from_pretrained(
                    checkpoint, dtype=dtype, use_safetensors=True, **parts
                )
            else:
                pipeline = StableDiffusionPipeline.from_pretrained(
                    checkpoint,
                    dtype=dtype,
                    use_safetensors=True,
                    safety_checker=None,
                    requires_safety_checker=False,
                    **parts,
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = in_one_line(error)
        raise UserError(f"{_name(checkpoint)} does not load as a Stable Diffusion pipeline: {reason}") from error
    _check_inputs(pipeline, checkpoint, conditioning="text_time" if has_two else None)
    check_scheduler(pipeline.scheduler)
    if has_two and dtype == torch.float16 and pipeline.vae.config.force_upcast:
        pipeline.vae.to(torch.float32)  # XL's decoder overflows in float16
    for lora in loras:
        file, scale = parse_lora(lora)
        add_lora(pipeline, file, scale=scale)
    return pipeline


def generator_id(checkpoint: str, *, config_from: str = "", loras: Sequence[str] = ()) -> str:
    """The name of the generator that a module belongs to: for a folder or file, or with LoRAs, 16 hexadecimal digits
    computed from the content of all that is loaded; for a hub id, the id.
    """
    if not Path(checkpoint).exists() and not loras:
        return checkpoint
    return generator_fingerprint(checkpoint, config_from=config_from, loras=loras)[:16]


def _variant_parts(folder: Path, index: dict[str, Any], *, dtype: torch.dtype) -> dict[str, torch.nn.Module]:
    """Part -> model, for each part of `folder` whose weights are there as a variant only.

    Raises: UserError for a part with several variants and no weights without one.
    """
    parts = {}
    for part in PIPELINE_PARTS:
        found = [_WEIGHTS.fullmatch(file.name) for file in sorted((folder / part).glob("*.safetensors"))]
        variants = sorted({match["variant"] or "" for match in found if match})
        if not variants or "" in variants:
            continue
        if len(variants) > 1:
            raise UserError(
                f"{_name(str(folder))}: {part} has weights of several variants ({', '.join(variants)}) and none "
                "without one; keep one of them"
            )
        library, kind = index[part]
        model = getattr(importlib.import_module(library), kind)
        parts[part] = model.from_pretrained(
            folder / part, variant=variants[0], use_safetensors=True, dtype=dtype
        ).eval()
    return parts


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
