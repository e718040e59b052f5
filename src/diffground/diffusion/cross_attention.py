"""Cross-attention probabilities of a diffusers UNet, read while it predicts noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isqrt

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

Observer = Callable[[int, Tensor], None]
"""Called with the index of a cross-attention layer and its probabilities (B, heads, h*w, T); they sum to 1 over T."""


def cross_attention_layers(unet: UNet2DConditionModel) -> list[Attention]:
    """The layers in which pixels attend to words, in the order in which the UNet runs them."""
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    modules = [module for block in blocks if block is not None for module in block.modules()]
    return [m for m in modules if isinstance(m, Attention) and m.is_cross_attention and m.added_kv_proj_dim is None]


@contextmanager
def observe_cross_attention(unet: UNet2DConditionModel, observer: Observer) -> Iterator[None]:
    """Show `observer` the probabilities of every cross-attention layer in the UNet passes inside the block.

    Inside the block the layers compute their softmax explicitly, so the noise prediction agrees with the usual one up
    to floating-point tolerance. Their own processors are restored at the end.
    """
    layers = cross_attention_layers(unet)
    processors = [layer.processor for layer in layers]
    for i, layer in enumerate(layers):
        layer.set_processor(_ObservedAttention(i, observer))
    try:
        yield
    finally:
        for layer, processor in zip(layers, processors, strict=True):
            layer.set_processor(processor)


class _ObservedAttention:
    """softmax(Q K^T / sqrt(d)) V with an explicit softmax; otherwise the same as diffusers' AttnProcessor."""

    def __init__(self, layer: int, observer: Observer) -> None:
        self._layer, self._observer = layer, observer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states (B, h*w, C) or (B, C, h, w), encoder_hidden_states (B, T, D) -> as hidden_states."""
        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if residual.ndim == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)  # (B, h*w, C)
        words = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        attention_mask = attn.prepare_attention_mask(attention_mask, words.shape[1], words.shape[0])
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        if attn.norm_cross:
            words = attn.norm_encoder_hidden_states(words)
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))  # (B*heads, h*w, d)
        key = attn.head_to_batch_dim(attn.to_k(words))  # (B*heads, T, d)
        value = attn.head_to_batch_dim(attn.to_v(words))
        probs = attn.get_attention_scores(query, key, attention_mask)  # (B*heads, h*w, T)
        self._observer(self._layer, probs.unflatten(0, (-1, attn.heads)))
        output = attn.batch_to_head_dim(torch.bmm(probs, value))  # (B, h*w, C)
        output = attn.to_out[1](attn.to_out[0](output))
        if residual.ndim == 4:
            output = output.transpose(1, 2).reshape(residual.shape)
        if attn.residual_connection:
            output = output + residual
        return output / attn.rescale_output_factor


class WordMaps:
    """An observer that keeps each layer's mean attention to words: over heads, tokens of the word, and passes.

    token_weights: float (B, T, Q), column q holds 1/n at the n token positions of word q, zeros for a word that is not
    in the prompt. In a pass with guidance, only the conditional half counts (the last B samples).
    """

    def __init__(self, token_weights: Tensor) -> None:
        self._weights = token_weights
        self._sums: dict[int, Tensor] = {}
        self._passes: dict[int, int] = {}

    def __call__(self, layer: int, probs: Tensor) -> None:
        batch_size = len(self._weights)
        words = probs[-batch_size:].float().mean(dim=1) @ self._weights  # (B, h*w, Q)
        side = isqrt(words.shape[1])
        maps = words.transpose(1, 2).unflatten(2, (side, side))  # (B, Q, h, w)
        self._sums[layer] = self._sums[layer] + maps if layer in self._sums else maps
        self._passes[layer] = self._passes.get(layer, 0) + 1

    @property
    def sizes(self) -> list[int]:
        """Side of the maps of each layer, in the order of cross_attention_layers."""
        return [self._sums[layer].shape[-1] for layer in sorted(self._sums)]

    @property
    def finest_size(self) -> int:
        """Side of the largest layer's maps."""
        return max(self.sizes)

    def resized(self, size: int, *, mode: str) -> Tensor:
        """float32 (B, Q, L, size, size), layers in the order of cross_attention_layers, resized with `mode`."""
        layers = []
        for layer in sorted(self._sums):
            maps = self._sums[layer] / self._passes[layer]
            if maps.shape[-1] != size:
                maps = F.interpolate(maps, size=(size, size), mode=mode, align_corners=False)
            layers.append(maps)
        return torch.stack(layers, dim=2)
