"""The tiny pipeline of the diffusion tests."""

from tests.unit.diffusion.conftest import checkpoint, generator

__all__ = ["checkpoint", "generator"]
