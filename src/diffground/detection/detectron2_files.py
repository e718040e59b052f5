"""A detectron2 checkpoint folder: config.yaml, and weights that are safetensors or a .pth of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from diffground.errors import UserError, in_one_line
from diffground.state_dict import read_state_dict

CONFIG, CATEGORIES = "config.yaml", "categories.txt"
_CONVERT = (
    "the model zoo's .pkl is a pickle, which is never loaded: read it where you trust it and write its 'model' with "
    "safetensors.torch.save_file, see docs/detectron2.md"
)
# written into checkpoints by older versions; today's models compute them
_COMPUTED = ("pixel_mean", "pixel_std", "cell_anchors")


def find_weights(folder: Path) -> Path:
    """The one weights file of `folder`, .safetensors before .pth.

    Raises: UserError when the folder is missing, has no config.yaml, or has none or several such files.
    """
    name = f"detector.checkpoint '{folder}'"
    if not folder.is_dir():
        raise UserError(f"{name}: no such folder; make one with {CONFIG} and model.safetensors")
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{name} has no {CONFIG}; write one, for a model of the zoo the line "
            "'_BASE_: COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml'"
        )
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.pth"))
    if not files:
        raise UserError(f"{name} has no .safetensors and no .pth; {_CONVERT}")
    if len(files) > 1:
        raise UserError(f"{name} must have one weights file, got {', '.join(f.name for f in files)}; leave one")
    return files[0]


def read_categories(folder: Path) -> tuple[str, ...] | None:
    """The lines of categories.txt: the category of class 0, of class 1, …; None where there is no such file.

    Raises: UserError for a file with an empty or repeated line, and one that is no text.
    """
    file = folder / CATEGORIES
    if not file.is_file():
        return None
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: cannot be read: {in_one_line(error, limit=None)}") from None
    wrong = next((i for i, name in enumerate(names) if not name or name in names[:i]), None)
    if wrong is not None:
        what = f"repeats '{names[wrong]}'" if names[wrong] else "is empty"
        raise UserError(f"{file}: line {wrong + 1} {what}; write one category per line, in the order of the classes")
    return tuple(names)


def zoo_config(config: Path) -> tuple[str | None, dict[str, Any]]:
    """The name of the model zoo's config that `config` is based on, and what it changes there.

    None, and no changes, when its _BASE_ is a file or absent: detectron2 then reads it by itself.
    Raises: UserError when it is no YAML.
    """
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{config}: cannot be read: {in_one_line(error, limit=None)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{config} must hold keys and values, got {type(values).__name__}")
    base = values.pop("_BASE_", None)
    if not isinstance(base, str) or (config.parent / Path(base).expanduser()).is_file():
        return None, {}
    return base, values


def read_weights(path: Path) -> dict[str, Tensor]:
    """Name -> tensor. A .pth may hold them under 'model', as detectron2 writes it.

    Raises: UserError for a file that is damaged, or that only an unrestricted unpickler could read.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: damaged: {in_one_line(error, limit=None)}; {_CONVERT}") from None
    weights = read_state_dict(path, remedy=_CONVERT)
    if not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} must hold tensors by their names, at the top or under 'model'; {_CONVERT}")
    return weights


def load_weights(model: nn.Module, path: Path) -> None:
    """Load `path` into `model`, every weight of both. Raises: UserError where they do not fit."""
    weights = {
        name: tensor
        for name, tensor in read_weights(path).items()
        if not any(part in _COMPUTED for part in name.split("."))
    }
    try:
        missing, unknown = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {CONFIG}: {in_one_line(error)}") from None
    # the number of batches seen is of no use here, and a frozen norm has none
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    unknown = [name for name in unknown if not name.endswith("num_batches_tracked")]
    if missing or unknown:
        raise UserError(
            f"{path} does not fit {CONFIG}: {len(missing)} weights are missing and {len(unknown)} are not the model's, "
            f"'{[*missing, *unknown][0]}' among them; take the config that it was trained with"
        )
