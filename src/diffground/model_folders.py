"""Checks of model folders and files that need neither torch nor diffusers, so that a wrong path is reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffground.errors import UserError
from diffground.runtime.fingerprint import is_hub_id, parse_lora

PIPELINE_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
"""Folders of a diffusers pipeline that hold weights; the last one only for Stable Diffusion XL."""

GROUNDING_REMEDY = "run `dvc repro train_grounding` (or `diffground import-released`)"

_CONVERT = "load it where you trust it with diffusers and write it with save_pretrained(folder)"
_PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def check_pipeline_folder(checkpoint: str, *, config_from: str = "", loras: Sequence[str] = ()) -> None:
    """Raises: UserError unless `checkpoint` is a hub id, a diffusers pipeline folder with safetensors, or a single
    .safetensors file with `config_from`, a pipeline folder; and for `loras` that parse_lora refuses.
    """
    name, folder = f"generator.checkpoint '{checkpoint}'", Path(checkpoint)
    for lora in loras:
        parse_lora(lora)
    if folder.is_file():
        _check_single_file(name, folder, config_from=config_from)
        return
    if config_from:
        raise UserError(
            f"generator.config_from '{config_from}' is only for a single file, and {name} is none; set it to ''"
        )
    if not folder.exists():
        if is_hub_id(checkpoint):
            return
        raise UserError(f"{name}: no such folder; restore it or set a diffusers pipeline folder or hub id")
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{name} has no model_index.json; give a diffusers pipeline folder or hub id")
    for part in PIPELINE_PARTS:
        files = [file.name for file in (folder / part).glob("*")]
        pickled = sorted(file for file in files if file.endswith(_PICKLED))
        if pickled and not any(file.endswith(".safetensors") for file in files):
            raise UserError(
                f"{name}: {part} has pickled weights only ({', '.join(pickled)}), must have safetensors; {_CONVERT}"
            )


def _check_single_file(name: str, file: Path, *, config_from: str) -> None:
    if file.suffix != ".safetensors":
        raise UserError(f"{name} is a file, must be a diffusers pipeline folder, hub id or .safetensors; {_CONVERT}")
    if not config_from:
        raise UserError(
            f"{name} is a single file, which has no configs and no tokenizer; set generator.config_from to a diffusers "
            "pipeline folder of the same kind (its weights are not needed)"
        )
    if not (Path(config_from) / "model_index.json").is_file():
        raise UserError(
            f"generator.config_from '{config_from}' has no model_index.json; give a diffusers pipeline folder"
        )


def check_grounding_folder(folder: Path) -> None:
    """Raises: UserError for a folder without a grounding module."""
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no grounding module ({name} is missing); {GROUNDING_REMEDY}")


def check_inversion_file(file: Path) -> None:
    """Raises: UserError unless `file` is there and may be the safetensors file of a textual inversion."""
    if file.suffix != ".safetensors":
        raise UserError(f"{file}: must be a .safetensors file; load it where you trust it and save it as one")
    if not file.exists():
        raise UserError(f"{file}: no such file; give the safetensors file of a textual inversion")
