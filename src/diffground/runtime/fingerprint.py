"""Identifies a checkpoint by its content."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

from diffground.errors import UserError

_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".onnx")


def generator_fingerprint(checkpoint: str | Path, *, config_from: str | Path = "", loras: Sequence[str] = ()) -> str:
    """checkpoint_fingerprint of `checkpoint` if it is all that is loaded; else SHA-256 over it, the files of
    `config_from` without its weights, which are not loaded, and content and scale of each of `loras` ('FILE'
    or 'FILE:SCALE'), in their order.

    Raises: UserError as parse_lora does.
    """
    base = checkpoint_fingerprint(checkpoint)
    if not config_from and not loras:
        return base
    configs = checkpoint_fingerprint(config_from, without=_WEIGHTS) if config_from else ""
    parts = [base, configs, [[checkpoint_fingerprint(file), scale] for file, scale in map(parse_lora, loras)]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def parse_lora(text: str) -> tuple[Path, float]:
    """'FILE' or 'FILE:SCALE' -> file and scale (1 without one).

    Raises: UserError for a file that is missing or not .safetensors, and a scale that is no finite number.
    """
    before, colon, after = text.rpartition(":")
    file, scale = (Path(before), after) if colon and not Path(text).exists() else (Path(text), "1")
    if file.suffix != ".safetensors":
        raise UserError(
            f"generator.loras: '{text}' must be FILE or FILE:SCALE with a .safetensors file; load another format where "
            "you trust it and save it as one"
        )
    if not file.is_file():
        raise UserError(f"generator.loras: '{file}': no such file; restore it or remove it from the list")
    try:
        number = float(scale)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"generator.loras: the scale of '{text}' must be a finite number, got '{scale}'")
    return file, number


def checkpoint_fingerprint(path_or_hub_id: str | Path, *, without: tuple[str, ...] = ()) -> str:
    """SHA-256 over names and contents of the files of a folder, or of one file; a hub id stands for itself.

    Model cards (*.md) and hidden files do not count: they change nothing that is computed. `without`: further suffixes
    that do not count.
    """
    root = Path(path_or_hub_id)
    if not root.exists():
        return str(path_or_hub_id)
    digest = hashlib.sha256()
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    for file in files:
        name = file.relative_to(root).as_posix()
        if file.suffix in (".md", *without) or any(part.startswith(".") for part in name.split("/") if part != "."):
            continue
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def is_hub_id(name: str) -> bool:
    """Whether `name` is an "owner/name" that is no file or folder here, nor a folder that should be here."""
    return name.count("/") == 1 and not name.startswith((".", "/", "models/")) and not Path(name).exists()
