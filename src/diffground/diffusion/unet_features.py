"""The tap: every block output of a diffusers UNet, read while it predicts noise (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn


@contextmanager
def tap_features(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """Collect the feature maps of the UNet passes inside the block.

    Yields: a list that a pass fills, in forward order, with tensors (B, C, h, w) in the UNet's dtype: the down path's
    residual outputs (conv_in, every layer, every downsampler), the mid block, every layer of the up path. Where an up
    block ends in an upsampler, the upsampler's output stands for the block's last layer. Sizes and channels are those
    of the UNet that is there. The noise prediction is the same, bit for bit, with and without the tap.
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        maps.append(output[0] if isinstance(output, tuple) else output)

    def keep_residuals(module: nn.Module, inputs: Any, output: tuple[Tensor, tuple[Tensor, ...]]) -> None:
        maps.extend(output[1])

    handles = [unet.conv_in.register_forward_hook(keep)]
    handles += [block.register_forward_hook(keep_residuals) for block in unet.down_blocks]
    if unet.mid_block is not None:
        handles.append(unet.mid_block.register_forward_hook(keep))
    for block in unet.up_blocks:
        # A layer is a residual block and, where there is one, the attention after it; the last layer's output is the
        # block's own, after the upsampler.
        layers = list(getattr(block, "attentions", None) or block.resnets)
        handles += [layer.register_forward_hook(keep) for layer in layers[:-1]]
        handles.append(block.register_forward_hook(keep))
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def group_by_size(maps: Sequence[Tensor]) -> dict[int, Tensor]:
    """Concatenate square feature maps (B, C_i, s, s) of equal size: {s: (B, sum of C_i, s, s)}, coarse to fine.

    Maps keep their order within a size.
    """
    sizes = sorted({m.shape[-1] for m in maps})
    return {size: torch.cat([m for m in maps if m.shape[-1] == size], dim=1) for size in sizes}


def stack_branches(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps of a pass with guidance, (2B, C, h, w), unconditional half first -> (B, 2C, h, w), that half first."""
    return [torch.cat(m.chunk(2), dim=1) for m in maps]
