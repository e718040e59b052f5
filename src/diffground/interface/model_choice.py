"""Which models are used where the user names none; without importing torch."""

from __future__ import annotations

from pathlib import Path

from diffground.reproduction import paths


def grounding_folder(given: Path | None) -> Path:
    """The module that is given, else the one trained here, and before a reproduction the shipped one."""
    shipped = paths.SHIPPED / "grounding"
    use_shipped = not paths.GROUNDING_MODEL.is_dir() and shipped.is_dir()
    return given or (shipped if use_shipped else paths.GROUNDING_MODEL)


def segmenter_folder(given: Path | None) -> Path:
    """The segmenter that is given, else the one trained here on synthetic images only, and before a reproduction the
    shipped one."""
    trained, shipped = paths.SEGMENTERS / "synthetic", paths.SHIPPED / "segmenter"
    return given or (shipped if not trained.is_dir() and shipped.is_dir() else trained)
