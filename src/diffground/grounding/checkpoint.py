"""The trained grounding module as a model folder: model.safetensors, config.json, README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from diffground.atomic import atomic_file, write_atomically
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.grounding.module import GroundingModule
from diffground.model_folders import GROUNDING_REMEDY, check_grounding_folder

_DEFAULTS = "defaults.json"
_MASK_THRESHOLD = 0.5


@dataclass(frozen=True)
class Defaults:
    """What a model folder proposes for its use. None of it changes the weights."""

    sampling: Sampling
    mask_threshold: float
    """Probability from which a pixel belongs to a word, 0..1."""


@dataclass(frozen=True)
class GroundingSpec:
    """Everything that rebuilds a module and decides the probabilities it gives."""

    feature_channels: dict[int, int]
    """Size (px) of the generator's feature maps -> channels."""
    text_dim: int
    num_attention_maps: int
    """Maps per word: of cross-attention, then of denoising gain; 0 without word attention."""
    reduced_channels: tuple[int, ...]
    embed_dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    patch_size: int
    tokens_at: str
    branches: str
    """UNet passes that the features come from: 'conditional' or 'both'."""
    gain_timesteps: tuple[int, ...]
    """Timesteps at which each word's denoising gain is read; its maps are the last of the attention maps."""
    generator_id: str
    """Generator on whose features it was trained, see diffusion.checkpoint.generator_id."""
    image_size: int
    """Side of the images it was trained on, px."""
    timestep: int
    """Timestep of the noise schedule at which its features are read."""
    sampling: Sampling
    """How its training images were sampled."""
    architecture: str = "diffground"
    """Of visual encoder and fusion: 'diffground', or 'released' for those of the published checkpoint."""

    def build(self) -> GroundingModule:
        """A module with fresh weights. Raises: UserError when sizes do not fit each other, ValueError for another
        architecture.
        """
        return GroundingModule(
            feature_channels=self.feature_channels,
            text_dim=self.text_dim,
            num_attention_maps=self.num_attention_maps,
            reduced_channels=self.reduced_channels,
            embed_dim=self.embed_dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            ffn_dim=self.ffn_dim,
            patch_size=self.patch_size,
            tokens_at=self.tokens_at,
            architecture=self.architecture,
        )


def save_grounding(folder: Path, module: GroundingModule, spec: GroundingSpec, *, card: str) -> None:
    """Write the model folder; each file appears whole or not at all."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with atomic_file(folder / "model.safetensors") as partial:
        save_file(weights, partial)
    write_atomically(folder / "config.json", json.dumps(_to_json(spec), indent=2, sort_keys=True) + "\n")
    write_atomically(folder / "README.md", card)


def load_grounding(folder: Path) -> tuple[GroundingModule, GroundingSpec]:
    """The module in evaluation mode, frozen, on the CPU, and its spec.

    Raises: UserError when the folder is missing, incomplete or damaged.
    """
    check_grounding_folder(folder)
    try:
        spec = _from_json(json.loads((folder / "config.json").read_text()))
        module = spec.build()
        module.load_state_dict(load_file(folder / "model.safetensors"))
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{folder}: not a complete grounding module ({first_line}); delete it and {GROUNDING_REMEDY}"
        ) from None
    return module.eval().requires_grad_(False), spec


def write_defaults(folder: Path, defaults: Defaults) -> None:
    """Write defaults.json next to a module's weights; it may change without a new training."""
    write_atomically(folder / _DEFAULTS, json.dumps(asdict(defaults), indent=2, sort_keys=True) + "\n")


def read_defaults(folder: Path, spec: GroundingSpec) -> Defaults:
    """Those of defaults.json; without that file, those of the training images and a threshold of 0.5.

    Raises: UserError when the file is damaged or holds something else.
    """
    path = folder / _DEFAULTS
    if not path.is_file():
        return Defaults(spec.sampling, _MASK_THRESHOLD)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Defaults(_sampling(values["sampling"]), float(values["mask_threshold"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: must hold sampling and mask_threshold ({error}); delete it or write it again"
        ) from None


def _to_json(spec: GroundingSpec) -> dict[str, Any]:
    sizes = {str(size): channels for size, channels in spec.feature_channels.items()}
    return {**vars(spec), "feature_channels": sizes, "sampling": vars(spec.sampling)}


def _from_json(values: Mapping[str, Any]) -> GroundingSpec:
    sizes = {int(size): channels for size, channels in values["feature_channels"].items()}
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    spec = {**values, **lists, "feature_channels": sizes, "sampling": _sampling(values["sampling"])}
    return GroundingSpec(**spec)


def _sampling(values: dict[str, Any]) -> Sampling:
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return Sampling(**(values | lists))
