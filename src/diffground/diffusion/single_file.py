"""Stable Diffusion 1.x, 2.x and XL from a single .safetensors file in the original layout, without network."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging

from diffground.errors import UserError, in_one_line

logger = logging.getLogger(__name__)


def load_single_file(
    file: Path, *, config_from: Path, is_xl: bool, dtype: torch.dtype
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """The weights of `file`, with configs, tokenizers and scheduler of the pipeline folder `config_from`.

    Raises: UserError where the weights do not fit these configs.
    """
    kind = StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline
    optional = {} if is_xl else {"safety_checker": None, "requires_safety_checker": False}
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()  # it lists unused keys, training state among them, over many lines
    try:
        pipeline = kind.from_single_file(
            str(file), config=str(config_from), local_files_only=True, dtype=dtype, disable_mmap=False, **optional
        )
    except Exception as error:  # diffusers raises whatever the first wrong key or shape leads to
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise
        raise _unfit(file, config_from, in_one_line(error)) from error
    finally:
        diffusers_logging.set_verbosity(verbosity)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            tensors = part.state_dict()
            missing = [key for key, tensor in tensors.items() if tensor.is_meta]
            if missing:
                what = f"{len(missing)} of {len(tensors)} weights of {name} are not in the file ({missing[0]}, …)"
                raise _unfit(file, config_from, what)
    predicts = pipeline.scheduler.config.get("prediction_type", "epsilon")
    logger.info("%s: configs, tokenizer and scheduler (predicts %s) are those of %s", file, predicts, config_from)
    return pipeline


def _unfit(file: Path, config_from: Path, reason: str) -> UserError:
    return UserError(
        f"generator.checkpoint '{file}' does not fit the configs of generator.config_from '{config_from}': {reason}; "
        "name a pipeline folder of the same kind"
    )
