"""How much memory this process may use: `runtime.max_memory_gib`."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import torch

from diffground.errors import UserError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_RESET_PEAK = "5"  # of proc(5), clear_refs

_max_cpu_bytes = 0


def limit_memory(max_memory_gib: float, device: torch.device) -> None:
    """Limit what this process uses from now on; 0: no limit.

    On a GPU, torch allocates at most so much of its memory, and raises its out-of-memory error for more. On the CPU,
    `in_batches` chooses batches by it (max_cpu_bytes); nothing else is limited.
    Raises: UserError on the CPU of a system that does not report the memory of a process (Linux does, in /proc).
    """
    global _max_cpu_bytes
    num_bytes = int(max_memory_gib * 2**30)
    if device.type == "cuda":
        if num_bytes:
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, num_bytes / total), device.index)
        return
    if num_bytes and not (_STATUS.is_file() and _CLEAR.is_file()):
        raise UserError(
            f"runtime.max_memory_gib is {max_memory_gib:g}: on a CPU this needs Linux, which reports the memory of a "
            f"process in {_STATUS}; set it to 0"
        )
    _max_cpu_bytes = num_bytes


def max_cpu_bytes() -> int:
    """The limit of limit_memory for the CPU; 0: none."""
    return _max_cpu_bytes


def peak_bytes() -> int:
    """The most memory that this process has had resident since forget_peak."""
    found = _PEAK.search(_STATUS.read_text())
    assert found is not None  # every Linux process has this line
    return int(found[1]) * 1024


def forget_peak() -> None:
    """Return freed memory to the system, and let peak_bytes start from what is left."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    _CLEAR.write_text(_RESET_PEAK)
