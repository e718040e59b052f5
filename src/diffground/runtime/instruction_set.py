"""Which vector instructions the processor's libraries may use: they decide the last bits of a result."""

from __future__ import annotations

import os
import sys
from typing import Literal

from diffground.errors import UserError

InstructionSet = Literal["native", "avx2", "compatible"]

_VARIABLES: dict[InstructionSet, dict[str, str]] = {
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    # MKL_CBWR=AVX2 has no effect on AMD processors; COMPATIBLE has, on all
    "compatible": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"},
}
"""Environment variables of torch's own kernels, oneDNN and MKL; each library reads its own at its first use."""


def limit_instruction_set(name: InstructionSet) -> None:
    """Limit this process, and those that it starts, to the instruction set `name`. 'native' changes nothing.

    Call it before torch is imported. Raises: RuntimeError after that.
    """
    if _VARIABLES[name] and "torch" in sys.modules:
        raise RuntimeError("limit_instruction_set must be called before torch is imported")
    os.environ.update(_VARIABLES[name])


def check_instruction_set(name: InstructionSet) -> None:
    """Raises: UserError where torch's own kernels use another one than `name` says."""
    import torch

    found = torch.backends.cpu.get_cpu_capability()
    if _VARIABLES[name] and found != "AVX2":
        raise UserError(f"runtime.instruction_set is '{name}', but torch computes with '{found}'; choose 'native'")


def limits() -> dict[str, str]:
    """The limits in force: environment variable -> value. Empty for 'native'."""
    names = {key for variables in _VARIABLES.values() for key in variables}
    return {key: os.environ[key] for key in sorted(names) if key in os.environ}
