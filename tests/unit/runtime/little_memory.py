"""Networks for which memory is too small, with the errors that torch raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

GPU_MESSAGE = "CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation"


def run_out_on_a_cpu() -> None:
    torch.empty(2**50)


def run_out_on_a_gpu() -> None:
    raise torch.OutOfMemoryError(GPU_MESSAGE)


@contextmanager
def room_for(num: int, network: nn.Module, *, run_out: Callable[[], None] = run_out_on_a_cpu) -> Iterator[list[int]]:
    """In this block, `network` runs out of memory for more than `num` samples. Gives the sizes of the batches that it
    was asked for, those that did not fit too."""
    sizes: list[int] = []

    def check(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        first = inputs[0] if inputs else named["pixel_values"]
        sizes.append(len(first))
        if len(first) > num:
            run_out()

    hook = network.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield sizes
    finally:
        hook.remove()
