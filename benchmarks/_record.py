"""What a benchmark's JSON says of the machine it ran on, and how JSON and table are written."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from diffground.atomic import write_atomically
from diffground.report.tables import Table

OUT = Path("reports/benchmarks")


def machine(*, num_threads: int) -> dict[str, Any]:
    """Processor, cores that this process may use, threads of torch, instruction set and versions."""
    return {
        "processor": _processor(),
        "num_cores": len(os.sched_getaffinity(0)),
        "num_threads": num_threads,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }


def in_words(found: Mapping[str, Any]) -> str:
    """One line about the result of `machine`, for the text next to a table."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"{found['processor']}, {found['num_cores']} cores, {found['num_threads']} thread(s), "
        f"{found['instruction_set']}; {versions}."
    )


def peak_mib() -> float:
    """Peak memory of this process, MiB. ru_maxrss would also count that of the process which started it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def write(out: Path, results: Mapping[str, Any], table: Table, *, text: str = "") -> None:
    """`out`.json and `out`.md, each atomically; `text` stands before the table."""
    write_atomically(out.with_suffix(".json"), json.dumps(results, indent=2) + "\n")
    write_atomically(out.with_suffix(".md"), f"{text}\n\n{table.to_markdown()}" if text else table.to_markdown())


def _processor() -> str:
    """The model's name where the system tells it, else the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names and names[0] not in ("", "unknown") else platform.machine()
