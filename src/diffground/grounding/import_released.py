"""The authors' published weights, grounding_module.pth, as a model folder of this library."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.grounding.card import released_card
from diffground.grounding.checkpoint import GroundingSpec, save_grounding
from diffground.grounding.module import GroundingModule
from diffground.state_dict import check_tensor, read_state_dict

RELEASED_SPEC = GroundingSpec(
    feature_channels={8: 15360, 16: 14080, 32: 8320, 64: 5120},
    text_dim=768,
    num_attention_maps=0,
    reduced_channels=(16, 32, 64, 128),
    embed_dim=512,
    num_layers=3,
    num_heads=8,
    ffn_dim=2048,
    patch_size=4,
    tokens_at="features",
    branches="both",
    gain_timesteps=(),
    generator_id="CompVis/stable-diffusion-v1-4",
    image_size=512,
    timestep=1,
    sampling=Sampling(num_steps=50, guidance_scale=5.0, tapped_step=1),
    architecture="released",
)
"""Stable Diffusion 1.x at 512 px, both guidance branches, unconditional first."""

_REMEDY = "give the file that the authors published"


def import_released(file: Path, folder: Path) -> GroundingModule:
    """Read `file`, write `folder` (model.safetensors, config.json, README.md) and return the module it holds.

    Raises: UserError when the file is missing, is more than plain tensors, or has missing, foreign or otherwise shaped
    ones, and when the folder already holds a model.
    """
    if (folder / "config.json").exists():
        raise UserError(f"{folder}: holds a model already; delete it or name another folder with -o")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: must be a folder, is a file; name another one with -o")
    module = read_released(file)
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    save_grounding(folder, module, RELEASED_SPEC, card=released_card(file.name, sha256=sha256))
    return module


def read_released(file: Path) -> GroundingModule:
    """The module of the published file, float32, in training mode as built. Raises: UserError as import_released."""
    state = {_our_name(name): tensor for name, tensor in read_state_dict(file, remedy=_REMEDY).items()}
    with torch.device("meta"):
        module = RELEASED_SPEC.build()
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    _check_names(file, found=set(state), expected=set(shapes))
    for name, tensor in state.items():
        published = _published_name(name)
        check_tensor(file, published, tensor, remedy=_REMEDY)
        if tuple(tensor.shape) != shapes[name]:
            has = tuple(tensor.shape)
            raise UserError(f"{file}: '{published}' must have shape {shapes[name]}, has {has}; {_REMEDY}")
    # Cloned: tensors that share memory in the file must not in the module.
    module.load_state_dict({name: tensor.float().clone() for name, tensor in state.items()}, assign=True)
    return module


def _our_name(name: str) -> str:
    part = "visual_encoder" if "_feature_" in name else "fusion"
    return f"{part}.{name}"


def _published_name(name: str) -> str:
    return name.split(".", 1)[1]


def _check_names(file: Path, *, found: set[str], expected: set[str]) -> None:
    for names, problem in ((expected - found, "is missing"), (found - expected, "is not part of the published module")):
        if names:
            first, others = _published_name(min(names)), len(names) - 1
            more = f" (and {others} more)" if others else ""
            raise UserError(f"{file}: {first!r} {problem}{more}; {_REMEDY}")
