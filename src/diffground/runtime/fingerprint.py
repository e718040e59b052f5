"""Identifies a checkpoint by its content."""

from __future__ import annotations

import hashlib
from pathlib import Path


def checkpoint_fingerprint(path_or_hub_id: str | Path) -> str:
    """SHA-256 over names and contents of the files of a folder, or of one file; a hub id stands for itself.

    Model cards (*.md) and hidden files do not count: they change nothing that is computed.
    """
    root = Path(path_or_hub_id)
    if not root.exists():
        return str(path_or_hub_id)
    digest = hashlib.sha256()
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    for file in files:
        name = file.relative_to(root).as_posix()
        if file.suffix == ".md" or any(part.startswith(".") for part in name.split("/") if part != "."):
            continue
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def is_hub_id(name: str) -> bool:
    """Whether `name` is an "owner/name" that is no file or folder here, nor a folder that should be here."""
    return name.count("/") == 1 and not name.startswith((".", "/", "models/")) and not Path(name).exists()
