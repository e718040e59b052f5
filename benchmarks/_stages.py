"""Stages in a scratch folder: with other parameters, on the data of this clone, which they leave as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from diffground.errors import UserError
from diffground.reproduction import paths

ROOT = Path(__file__).resolve().parents[1]


def scratch_folder(folder: Path, *, inputs: Sequence[Path], changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Link `inputs`, relative to this clone, into `folder`, and write params.yaml there with `changes` in its sections.

    Raises: UserError for an input that is missing.
    """
    for path in inputs:
        if not (ROOT / path).exists():
            raise UserError(f"{path}: missing; run `dvc repro` or `dvc pull` first")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(ROOT / path)
    params = yaml.safe_load((ROOT / paths.PARAMS).read_text(encoding="utf-8"))
    for section, values in changes.items():
        params[section] |= values
    params["tracking"]["enabled"] = False
    (folder / paths.PARAMS).write_text(yaml.safe_dump(params), encoding="utf-8")


def run_stage(name: str, folder: Path) -> None:
    """Run a stage in `folder`, with this Python. Raises: UserError when it fails; what it printed is above."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    code = subprocess.run([sys.executable, ROOT / f"stages/{name}.py"], cwd=folder, env=environment).returncode
    if code:
        raise UserError(f"stage {name} ended with {code}; see its message above")
