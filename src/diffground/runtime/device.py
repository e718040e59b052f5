"""Where torch computes, in what precision, and how repeatably."""

from __future__ import annotations

import ctypes
import os

import torch

from diffground.errors import UserError
from diffground.runtime.config import RuntimeConfig
from diffground.runtime.instruction_set import check_instruction_set
from diffground.runtime.memory import limit_memory

_CPU = torch.device("cpu")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
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


def pick_dtype(name: str, device: torch.device = _CPU) -> torch.dtype:
    """'auto' is bfloat16 where `device` has instructions for it, else float32.

    Raises: UserError for another name than 'auto', 'float32', 'bfloat16', 'float16'.
    """
    if name == "auto":
        return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32
    if name not in _DTYPES:
        raise UserError(f"generator.dtype must be one of auto, {', '.join(_DTYPES)}, got '{name}'")
    return _DTYPES[name]


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # oneDNN also takes bfloat16 on processors that only emulate it, slower than float32. torch reports the instructions
    # by private functions; where it has none of them, float32 is right too.
    instructions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    if not any(getattr(torch.cpu, name, bool)() for name in instructions):
        return False
    by_onednn = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return by_onednn is not None and bool(by_onednn())


def setup(runtime: RuntimeConfig) -> torch.device:
    """Set torch's threads, repeatable algorithms and memory for this process and return the device.

    Raises: UserError as pick_device, check_instruction_set and limit_memory do.
    """
    check_instruction_set(runtime.instruction_set)
    setup_torch(num_threads=runtime.num_threads)
    device = pick_device(runtime.device)
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:  # one of several processes, each with its own GPU
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    limit_memory(runtime.max_memory_gib, device)
    return device


def setup_torch(*, num_threads: int) -> None:
    """The part of `setup` that every process needs, including one whose device is given."""
    # cuBLAS reads this when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    _keep_freed_memory()
    # use_deterministic_algorithms(True, warn_only=True), without its import of the compiler, which takes seconds
    torch.set_deterministic_debug_mode("warn")
    # filling every new tensor with NaN is for debugging and costs time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor, instead of returning it to the system.

    By default, memory of more than 32 MiB is mapped anew each time, and each of its pages faults on first use: sampling
    takes 20 % longer, the VAE 60 %. Does nothing with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(parameter, 2**30)
