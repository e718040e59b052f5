"""The workers that `runtime.backend` names."""

from __future__ import annotations

import torch

from diffground.errors import UserError
from diffground.runtime.config import RuntimeConfig
from diffground.runtime.workers import Workers


def make_workers(runtime: RuntimeConfig, device: torch.device) -> Workers:
    """As `runtime` says. On GPUs: one with backend 'local', one per GPU of the cluster with backend 'ray'.

    Raises: UserError for backend 'ray' when it is not installed, and with a GPU's number, because Ray assigns the GPUs.
    """
    on_gpus = device.type != "cpu"
    if runtime.backend == "local":
        num_workers = 1 if on_gpus else runtime.num_workers
        return Workers(num_workers=num_workers, num_threads=runtime.num_threads, max_memory_gib=runtime.max_memory_gib)
    if device != torch.device(device.type):
        raise UserError(
            f"runtime.device must be 'auto', 'cpu' or 'cuda' where runtime.backend is 'ray', got '{device}'"
        )
    from diffground.runtime.ray.workers import RayWorkers  # Ray is optional

    return RayWorkers(
        num_workers=runtime.num_workers,
        num_threads=runtime.num_threads,
        max_memory_gib=runtime.max_memory_gib,
        address=runtime.ray_address,
        on_gpus=on_gpus,
    )
