"""Where torch computes, in what precision, and how repeatably."""

from __future__ import annotations

import os

import torch

from diffground.config import RuntimeConfig
from diffground.errors import UserError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """'auto' is the first GPU, else the CPU. Raises: UserError for a device that is unknown or not there."""
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if num_gpus else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"runtime.device must be 'auto', 'cpu', 'cuda' or 'cuda:<index>', got '{name}'")
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        raise UserError(f"runtime.device is '{name}', but torch sees {num_gpus} GPUs; choose 'auto' or 'cpu'")
    return device


def pick_dtype(name: str) -> torch.dtype:
    """Raises: UserError for another name than 'float32', 'bfloat16', 'float16'."""
    if name not in _DTYPES:
        raise UserError(f"generator.dtype must be one of {', '.join(_DTYPES)}, got '{name}'")
    return _DTYPES[name]


def setup(runtime: RuntimeConfig) -> torch.device:
    """Set torch's threads and repeatable algorithms for this process and return the device.

    Raises: UserError as pick_device does.
    """
    # cuBLAS reads this when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(runtime.num_threads)
    # use_deterministic_algorithms(True, warn_only=True), without its import of the compiler, which takes seconds
    torch.set_deterministic_debug_mode("warn")
    # filling every new tensor with NaN is for debugging and costs time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    return pick_device(runtime.device)
