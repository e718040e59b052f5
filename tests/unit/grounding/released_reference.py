"""The published computation written out step by step on a plain state dict, apart from diffground's own modules."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = ("low", "mid", "high", "highest")
"""Coarse to fine: 8, 16, 32, 64 px for Stable Diffusion at 512 px."""


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published file."""
    with (Path(__file__).parent / "released_grounding_checkpoint.csv").open(newline="") as stream:
        return {row["key"]: tuple(map(int, row["shape"].split("x"))) for row in csv.DictReader(stream)}


def random_state(shapes: Mapping[str, tuple[int, ...]], *, seed: int) -> dict[str, Tensor]:
    """Values of a sensible scale, none of them at its initial value."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if "stored_var" in name or "sv0" in name:
            values = 0.5 + values.abs()
        elif ".norm" in name:
            values = 0.2 * values + (1 if name.endswith("weight") else 0)
        elif name.endswith("weight"):
            values = values / values[0].numel() ** 0.5
        if name.startswith("mlp.layers.2"):
            values = 0.1 * values  # logits of a few units
        state[name] = values
    return state


def reference_logits(
    state: Mapping[str, Tensor],
    maps: Mapping[str, Tensor],
    text: Tensor,
    *,
    num_heads: int,
    image_size: int,
    train: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Args:
        maps: level -> (B, C, s, s), s doubling from level to level.
        text: (B, Q, text_dim).
    Returns: logits (B, Q, image_size, image_size); the buffers that changed, with their new values.
    """
    changed: dict[str, Tensor] = {}
    fused = _fused(state, maps, train=train, changed=changed)
    num_layers = len({name.split(".")[2] for name in state if name.startswith("transfromer_decoder")})
    channels, side = fused.shape[1], fused.shape[-1]
    patch = int((state["to_k.weight"].shape[1] / channels) ** 0.5)
    logits = []
    for b in range(len(text)):  # one by one: the released code is right for a single sample
        grid = fused[b].reshape(channels, side // patch, patch, side // patch, patch)
        patches = grid.permute(1, 3, 0, 2, 4).reshape(-1, channels * patch * patch)  # channel-major
        tokens = patches @ state["to_k.weight"].T
        queries = text[b] @ state["to_q.weight"].T
        for i in range(num_layers):
            queries = _decoder_layer(state, f"transfromer_decoder.layers.{i}.", queries, tokens, num_heads=num_heads)
        for i in range(3):
            queries = queries @ state[f"mlp.layers.{i}.weight"].T + state[f"mlp.layers.{i}.bias"]
            queries = queries.clamp(min=0) if i < 2 else queries
        large = _resize(fused[b : b + 1], image_size)[0]
        logits.append(torch.einsum("qd,dyx->qyx", queries, large))
    return torch.stack(logits), changed


def _fused(
    state: Mapping[str, Tensor], maps: Mapping[str, Tensor], *, train: bool, changed: dict[str, Tensor]
) -> Tensor:
    _, mid, high, highest = (maps[level].shape[-1] for level in LEVELS)
    doubled = {"low": mid, "mid": high, "high": highest, "highest": highest}
    reduced = {
        level: F.conv2d(_resize(maps[level], doubled[level]), state[f"{level}_feature_conv.0.weight"])
        for level in LEVELS
    }
    x = torch.cat([_resize(reduced["low"], high), reduced["mid"]], dim=1)
    x = _mix(state, "mid_feature_mix_conv.", x, train=train, changed=changed)
    x = torch.cat([_resize(x, highest), reduced["high"]], dim=1)
    x = _mix(state, "high_feature_mix_conv.", x, train=train, changed=changed)
    x = torch.cat([x, reduced["highest"]], dim=1)
    return _mix(state, "highest_feature_mix_conv.", x, train=train, changed=changed)


def _mix(state: Mapping[str, Tensor], at: str, x: Tensor, *, train: bool, changed: dict[str, Tensor]) -> Tensor:
    x = _batch_norm(state, at, 1, x, train=train, changed=changed)
    h = x.relu_()  # in place: what is added below is the activated x
    h = _conv(state, f"{at}conv1.", h, train=train, changed=changed)
    h = _batch_norm(state, at, 2, h, train=train, changed=changed).relu_()
    return _conv(state, f"{at}conv2.", h, train=train, changed=changed) + x


def _batch_norm(
    state: Mapping[str, Tensor], at: str, i: int, x: Tensor, *, train: bool, changed: dict[str, Tensor]
) -> Tensor:
    mean, var = state[f"{at}stored_mean{i}"], state[f"{at}stored_var{i}"]
    if train:
        pixels = x.transpose(0, 1).flatten(1)  # (C, B s s)
        stored = {"mean": (mean, pixels.mean(dim=1)), "var": (var, pixels.var(dim=1, unbiased=True))}
        for kind, (old, new) in stored.items():
            changed[f"{at}stored_{kind}{i}"] = (0.9 * old + 0.1 * new).detach()
        mean, var = pixels.mean(dim=1), pixels.var(dim=1, unbiased=False)
    return (x - mean[:, None, None]) / (var[:, None, None] + 1e-4).sqrt()


def _conv(state: Mapping[str, Tensor], at: str, x: Tensor, *, train: bool, changed: dict[str, Tensor]) -> Tensor:
    weight = state[f"{at}weight"]
    matrix = weight.reshape(len(weight), -1)
    with torch.no_grad():
        v = state[f"{at}u0"] @ matrix
        v = v / v.norm().clamp(min=1e-4)
        u = v @ matrix.T
        u = u / u.norm().clamp(min=1e-4)
    sv = v @ matrix.T @ u.T  # (1, 1)
    if train:
        changed[f"{at}u0"], changed[f"{at}sv0"] = u, sv.detach()[0]
    return F.conv2d(x, weight / sv[0, 0], state[f"{at}bias"], padding=1)


def _decoder_layer(state: Mapping[str, Tensor], at: str, x: Tensor, tokens: Tensor, *, num_heads: int) -> Tensor:
    normed = _layer_norm(state, f"{at}norm1.", x)
    x = x + _attend(state, f"{at}self_attn.", normed, normed, num_heads=num_heads)
    x = x + _attend(state, f"{at}multihead_attn.", _layer_norm(state, f"{at}norm2.", x), tokens, num_heads=num_heads)
    hidden = _layer_norm(state, f"{at}norm3.", x) @ state[f"{at}linear1.weight"].T + state[f"{at}linear1.bias"]
    return x + hidden.clamp(min=0) @ state[f"{at}linear2.weight"].T + state[f"{at}linear2.bias"]


def _attend(state: Mapping[str, Tensor], at: str, x: Tensor, seen: Tensor, *, num_heads: int) -> Tensor:
    to_q, to_k, to_v = state[f"{at}in_proj_weight"].chunk(3)
    q, k, v = x @ to_q.T, seen @ to_k.T, seen @ to_v.T
    heads = []
    for h in range(num_heads):
        part = slice(h * q.shape[1] // num_heads, (h + 1) * q.shape[1] // num_heads)
        scores = q[:, part] @ k[:, part].T / (q.shape[1] // num_heads) ** 0.5
        heads.append(scores.softmax(dim=-1) @ v[:, part])
    return torch.cat(heads, dim=1) @ state[f"{at}out_proj.weight"].T


def _layer_norm(state: Mapping[str, Tensor], at: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    spread = (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return centred / spread * state[f"{at}weight"] + state[f"{at}bias"]


def _resize(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
