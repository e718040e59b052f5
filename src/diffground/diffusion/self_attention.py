"""Self-attention probabilities of a diffusers UNet: which pixels of a latent belong together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from diffground.diffusion.cross_attention import Observer
from diffground.errors import UserError


def self_attention_layers(unet: UNet2DConditionModel) -> list[Attention]:
    """The layers in which pixels attend to pixels, in the order in which the UNet runs them; may be none."""
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    modules = [module for block in blocks if block is not None for module in block.modules()]
    return [m for m in modules if isinstance(m, Attention) and not m.is_cross_attention and m.added_kv_proj_dim is None]


@contextmanager
def observe_self_attention(unet: UNet2DConditionModel, observer: Observer, *, max_size: int) -> Iterator[None]:
    """Show `observer` the probabilities of self-attention in the UNet passes inside the block.

    It is called with the index of a layer and its probabilities, float32 (B, heads, s*s, s*s); they sum to 1 over the
    last axis. Layers with s > `max_size` are not computed: a matrix takes 4 s^4 bytes per head. The layers run
    unchanged, so the noise prediction is the same, bit for bit.
    Raises: UserError for a UNet whose projections are fused.
    """
    layers = self_attention_layers(unet)
    if any(layer.fused_projections for layer in layers):
        raise UserError("the UNet's projections are fused, self-attention cannot be read; unfuse_qkv_projections()")
    handles = []
    for i, layer in enumerate(layers):
        handles += _watch(i, layer, observer, max_size)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(index: int, layer: Attention, observer: Observer, max_size: int) -> list[Any]:
    """Hooks that keep the outputs of the projections and show the probabilities after the layer has run."""
    projected: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            projected[name] = output

        return hook

    def show(module: nn.Module, inputs: Any, output: Any) -> None:
        query, key = (projected.pop(name) for name in ("query", "key"))  # (B, s*s, C)
        if query.shape[1] <= max_size**2:
            observer(index, _probabilities(layer, query, key))

    return [
        layer.to_q.register_forward_hook(keep("query")),
        layer.to_k.register_forward_hook(keep("key")),
        layer.register_forward_hook(show),
    ]


def _probabilities(layer: Attention, query: Tensor, key: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) of projections (B, s*s, heads*d), float32 (B, heads, s*s, s*s)."""
    query, key = (x.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for x in (query, key))  # (B, heads, s*s, d)
    if layer.norm_q is not None:
        query = layer.norm_q(query)
    if layer.norm_k is not None:
        key = layer.norm_k(key)
    scores = query.float() @ key.float().transpose(-1, -2) * layer.scale
    return scores.softmax(dim=-1)


class PixelAffinity:
    """An observer that keeps, by size, the mean self-attention over heads, layers and passes.

    Of a pass with guidance, the conditional half counts (the last `batch_size` samples).
    """

    def __init__(self, *, batch_size: int) -> None:
        self._batch_size = batch_size
        self._sums: dict[int, Tensor] = {}
        self._counts: dict[int, int] = {}

    def __call__(self, layer: int, probs: Tensor) -> None:
        num_pixels = probs.shape[-1]
        mean = probs[-self._batch_size :].mean(dim=1)  # (B, s*s, s*s)
        self._sums[num_pixels] = self._sums[num_pixels] + mean if num_pixels in self._sums else mean
        self._counts[num_pixels] = self._counts.get(num_pixels, 0) + 1

    def finest(self) -> Tensor | None:
        """float32 (B, s*s, s*s) at the largest size seen, rows sum to 1; None if no layer was small enough."""
        if not self._sums:
            return None
        num_pixels = max(self._sums)
        return self._sums[num_pixels] / self._counts[num_pixels]


def refine(maps: Tensor, affinity: Tensor, *, power: int) -> Tensor:
    """Spread maps over the pixels that belong together: affinity^power @ map.

    Args:
        maps: float (B, Q, s, s).
        affinity: float (B, s*s, s*s), rows sum to 1: a refined pixel is an average of the map.
        power: number of times, 0 or more.
    Returns: as maps.
    """
    columns = maps.flatten(2).transpose(1, 2)  # (B, s*s, Q)
    for _ in range(power):
        columns = torch.bmm(affinity, columns)
    return columns.transpose(1, 2).reshape(maps.shape)
