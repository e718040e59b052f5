"""Weights in files that torch.save wrote, read without running what they may hold."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffground.errors import UserError


def read_state_dict(file: Path, *, remedy: str) -> dict[str, Any]:
    """Name -> tensor, on the CPU, of `file`, or of what it has under 'model' next to a training's other state.

    Values are tensors or other plain data. `remedy` ends each message.
    Raises: UserError for a file that is missing, damaged, or no state dict, or that only an unrestricted unpickler
    could read.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; {remedy}")
    try:
        with warnings.catch_warnings(action="ignore"):  # the error says it in one line
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error}); {remedy}") from None
    except Exception as error:  # a reader of foreign bytes trips over them in any way
        wanted = re.search(r"GLOBAL (\S+)", str(error))  # without PyTorch's advice on how to load it all the same
        reason = f"it refers to {wanted[1]}" if wanted else "it is damaged, or of another kind"
        raise UserError(f"{file}: must hold plain tensors only, never pickled code ({reason}); {remedy}") from None
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{file}: must be a state dict (name -> tensor), is a {type(state).__name__}; {remedy}")
    return state


def check_tensor(file: Path, name: str, value: object, *, remedy: str) -> None:
    """Raises: UserError unless `value`, which `file` has under `name`, is a dense tensor of finite floats."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.layout != torch.strided:
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"{file}: {name!r} must be a dense float tensor, is {kind}; {remedy}")
    if value.is_meta or not value.numel() or not bool(value.isfinite().all()):
        raise UserError(f"{file}: {name!r} must hold finite numbers; {remedy}")
