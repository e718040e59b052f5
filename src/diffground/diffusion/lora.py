"""LoRA (Hu et al., ICLR 2022): low-rank updates of a file are added to the weights of a pipeline, before a Generator
takes it. Nothing is left to compute while sampling, and no package is needed in addition to diffusers.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from diffground.errors import UserError, in_one_line

logger = logging.getLogger(__name__)

_PARTS = {
    "lora_unet_": "unet",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te_": "text_encoder",
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
}
"""How keys begin -> part of the pipeline, in the layouts of kohya and diffusers; other keys are those of a UNet."""
_MATRIX = re.compile(
    r"(?P<layer>.+?)(\.lora_|\.lora\.|_lora\.|\.lora_linear_layer\.)(?P<side>down|up|A|B)(\.default)?\.weight"
)
_ALPHA = re.compile(r"(?P<layer>.+?)(\.lora|_lora)?\.alpha")
_OTHER_NAMES = (
    ("_processor", ""),
    # as the original code names them, in kohya files of XL
    ("input_blocks_0_0", "conv_in"),
    ("middle_block_0_", "mid_block_resnets_0_"),
    ("middle_block_1_", "mid_block_attentions_0_"),
    ("middle_block_2_", "mid_block_resnets_1_"),
    ("time_embed_0", "time_embedding_linear_1"),
    ("time_embed_2", "time_embedding_linear_2"),
    ("label_emb_0_0", "add_embedding_linear_1"),
    ("label_emb_0_2", "add_embedding_linear_2"),
    ("in_layers_2", "conv1"),
    ("out_layers_3", "conv2"),
    ("emb_layers_1", "time_emb_proj"),
    ("skip_connection", "conv_shortcut"),
    # attention of a text encoder as old versions of diffusers name it
    ("self_attn_to_q", "self_attn_q_proj"),
    ("self_attn_to_k", "self_attn_k_proj"),
    ("self_attn_to_v", "self_attn_v_proj"),
    ("self_attn_to_out", "self_attn_out_proj"),
)


@dataclass
class _Update:
    """One layer's update alpha / rank * up @ down."""

    down: Tensor | None = None
    """(rank, in) or, of a convolution, (rank, in, h, w)."""
    up: Tensor | None = None
    """(out, rank) or (out, rank, 1, 1)."""
    alpha: float | None = None

    def delta(self, weight: Tensor) -> Tensor | None:
        """float32 in the shape of `weight`; None where it does not fit."""
        if self.down is None or self.up is None:
            return None
        up, down = self.up.float().flatten(1), self.down.float().flatten(1)
        if up.shape[1] != len(down) or len(up) != len(weight) or len(up) * down.shape[1] != weight.numel():
            return None
        alpha = len(down) if self.alpha is None else self.alpha
        return (alpha / len(down) * up @ down).reshape(weight.shape)


@torch.no_grad()
def add_lora(pipeline: DiffusionPipeline, file: Path, *, scale: float) -> int:
    """Add `scale` times the updates of a safetensors file to UNet and text encoders, in place; returns how many layers.

    Layouts: diffusers (`unet.….lora_A.weight`, `….lora.down.weight`, `….processor.to_q_lora.down.weight`) and kohya
    (`lora_unet_….lora_down.weight` with alpha), linear layers and convolutions. Updates of layers that the pipeline
    does not have are left out, with a warning that counts them.
    Raises: UserError for a file that is damaged, that is no LoRA, of which no layer fits, or whose shapes are others.
    """
    tensors, settings = _read(file)
    updates = _updates(tensors, layers_per_block=pipeline.unet.config.layers_per_block)
    layers = {part: _layers(getattr(pipeline, part, None)) for part in set(_PARTS.values())}
    fitting = {key: layers[key[0]][key[1]] for key in updates if key[1] in layers[key[0]]}
    if not fitting:
        raise UserError(
            f"generator.loras: '{file}': none of its {len(tensors)} tensors belongs to a layer of this generator; give "
            "a LoRA that was trained for it"
        )
    for (part, name), weight in fitting.items():
        update = updates[part, name]
        if update.alpha is None:
            update.alpha = settings.get(f"{part}.lora_alpha")
        delta = update.delta(weight)
        if delta is None:
            shapes = [None if matrix is None else tuple(matrix.shape) for matrix in (update.up, update.down)]
            raise UserError(
                f"generator.loras: '{file}': up and down of {part} {name} have the shapes {shapes[0]} and {shapes[1]}, "
                f"the layer's weight {tuple(weight.shape)}; give a LoRA that was trained for this generator"
            )
        weight.copy_(weight.float() + scale * delta.to(weight.device))
    left_out = sorted(name for part, name in updates if (part, name) not in fitting)
    if left_out:
        logger.warning(
            "generator.loras: '%s': %d of its %d layers are not in this generator and are left out (%s, …)",
            file,
            len(left_out),
            len(updates),
            left_out[0],
        )
    return len(fitting)


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and the settings that diffusers wrote with them ("unet.lora_alpha" …)."""
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            settings = json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"generator.loras: '{file}': not a safetensors file ({in_one_line(error)}); restore it"
        ) from None
    kinds = [key for key in tensors if "dora_scale" in key or "lora_magnitude_vector" in key]
    unknown = [key for key, value in settings.items() if value and key.endswith(("use_dora", "use_rslora", "_pattern"))]
    if kinds or unknown:
        raise UserError(
            f"generator.loras: '{file}': {(kinds + unknown)[0]}: only plain LoRA is read (no DoRA, no rank-stabilised "
            "or per-layer alpha); add it to the weights with diffusers and save the pipeline"
        )
    return tensors, settings


def _updates(tensors: dict[str, Tensor], *, layers_per_block: int) -> dict[tuple[str, str], _Update]:
    """(Part, layer with underscores) -> update. Keys that are neither a matrix nor an alpha count as a layer each."""
    updates: dict[tuple[str, str], _Update] = {}
    for key, tensor in tensors.items():
        matrix, alpha = _MATRIX.fullmatch(key), _ALPHA.fullmatch(key)
        found = matrix or alpha
        update = updates.setdefault(_place(found["layer"] if found else key, layers_per_block), _Update())
        if matrix is not None:
            setattr(update, "down" if matrix["side"] in ("down", "A") else "up", tensor)
        elif alpha is not None:
            update.alpha = float(tensor)
    return updates


def _place(layer: str, layers_per_block: int) -> tuple[str, str]:
    layer = layer.removeprefix("base_model.model.")
    prefix = next((prefix for prefix in _PARTS if layer.startswith(prefix)), "")
    name = layer.removeprefix(prefix).replace(".", "_")
    for other, ours in _OTHER_NAMES:
        name = name.replace(other, ours)
    part = _PARTS.get(prefix, "unet")
    if part == "unet":
        name = "conv_out" if name == "out_2" else name
        name = _in_blocks(name, layers_per_block)
    if part == "unet" and name.endswith("to_out"):
        name += "_0"
    return part, name.removeprefix("text_model_")


def _in_blocks(name: str, layers_per_block: int) -> str:
    """The original code counts the layers of all blocks, diffusers counts blocks and the layers of each."""
    match = re.fullmatch(r"(input|output)_blocks_(\d+)_(\d+)_(.+)", name)
    if match is None:
        return name
    path, inner = match[4], "attentions" if match[3] == "1" else "resnets"
    side, first = ("down", 1) if match[1] == "input" else ("up", 0)
    block, layer = divmod(int(match[2]) - first, layers_per_block + 1)
    if path in ("op", "conv"):
        return f"{side}_blocks_{block}_{side}samplers_0_conv"
    return f"{side}_blocks_{block}_{inner}_{layer}_{path}"


def _layers(model: nn.Module | None) -> dict[str, Tensor]:
    """Name with underscores -> weight of a linear layer or convolution; none without a model."""
    return {
        name.replace(".", "_").removeprefix("text_model_"): module.weight
        for name, module in ([] if model is None else model.named_modules())
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
