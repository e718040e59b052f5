"""The generator that params.yaml names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from diffground.diffusion.generator import Generator
from diffground.runtime.device import pick_dtype


class GeneratorSettings(Protocol):
    """What a generator is loaded by: section `generator` of params.yaml."""

    @property
    def checkpoint(self) -> str: ...
    @property
    def image_size(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def config_from(self) -> str: ...
    @property
    def loras(self) -> Sequence[str]: ...


def load_generator(settings: GeneratorSettings, device: torch.device) -> Generator:
    """Raises: UserError as Generator.load does."""
    return Generator.load(
        settings.checkpoint,
        device=device,
        dtype=pick_dtype(settings.dtype, device),
        image_size=settings.image_size,
        config_from=settings.config_from,
        loras=settings.loras,
    )
