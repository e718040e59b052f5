"""Metrics files: one JSON per stage under reports/metrics, nested, mIoU in percent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffground.atomic import write_atomically
from diffground.errors import UserError
from diffground.reproduction import paths


def write_metrics(stage: str, values: Mapping[str, Any], *, folder: Path = paths.METRICS) -> dict[str, float]:
    """Write `folder`/`stage`.json with sorted keys and rounded numbers. Returns: the numbers, 'stage/outer/inner'.

    `values` nests mappings of str to numbers, None (not measured), strings, and lists of these.
    Raises ValueError for NaN and infinity: a metric that does not exist is None.
    """
    text = json.dumps(_rounded(values, stage), indent=2, sort_keys=True)
    write_atomically(folder / f"{stage}.json", text + "\n")
    return flatten(values, prefix=stage)


def read_metrics(stage: str, *, folder: Path = paths.METRICS) -> dict[str, Any]:
    """Read what `write_metrics` wrote. Raises UserError when the file is missing or no JSON object."""
    path = folder / f"{stage}.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such metrics file; run `dvc repro {stage}`") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run `dvc repro {stage}`") from None
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: must hold a JSON object, got {type(values).__name__}; delete it and run `dvc repro {stage}`"
        )
    return values


def flatten(values: Mapping[str, Any], *, prefix: str = "") -> dict[str, float]:
    """Numbers of a nested mapping, keyed 'outer/inner'. Strings, lists and None are left out."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat.update(flatten(value, prefix=name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name] = float(value)
    return flat


def round_metric(value: float) -> float:
    """Two decimals from 1 up (percent, seconds), four significant digits below (losses, rates)."""
    return round(value, 2) if abs(value) >= 1 else float(f"{value:.4g}")


def _rounded(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(inner, f"{name}/{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner, name) for inner in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    number = float(value)  # also numpy and torch scalars
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}; write None for a metric that does not exist")
    return round_metric(number)
