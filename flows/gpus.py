"""The visible GPUs, and slots for them."""

from __future__ import annotations

import os
import subprocess
from contextlib import AbstractContextManager, nullcontext

LIMIT = "gpu"
"""Prefect's global concurrency limit: one slot per GPU."""


def visible_gpus() -> list[str]:
    """Indices or UUIDs as CUDA_VISIBLE_DEVICES takes them; none without NVIDIA's driver."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    try:
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        listed = subprocess.run(query, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return listed.stdout.split() if listed.returncode == 0 else []


def gpu_slot(*, needed: bool) -> AbstractContextManager[None]:
    """Hold a slot of the limit within the block, if needed."""
    if not needed:
        return nullcontext()
    from prefect.concurrency.sync import concurrency

    return concurrency(LIMIT, occupy=1)
