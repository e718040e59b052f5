"""The names that weights have in single files of the original code, by the published conversion tables."""

from __future__ import annotations

import re

import torch
from diffusers import DiffusionPipeline
from torch import Tensor


def original_weights(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    """All weights of a Stable Diffusion 1.x, 2.x or XL pipeline as one file in the original layout."""
    weights = {f"model.diffusion_model.{key}": tensor for key, tensor in _unet(pipeline).items()}
    weights |= {f"first_stage_model.{key}": tensor for key, tensor in _vae(pipeline).items()}
    if getattr(pipeline, "text_encoder_2", None) is not None:
        weights |= _clip(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
        weights |= _open_clip(pipeline.text_encoder_2, "conditioner.embedders.1.model.")
    elif pipeline.unet.config.use_linear_projection:  # 2.x
        weights |= _open_clip(pipeline.text_encoder, "cond_stage_model.model.")
    else:
        weights |= _clip(pipeline.text_encoder, "cond_stage_model.transformer.")
    return {key: tensor.clone().contiguous() for key, tensor in weights.items()}


def _replaced(weights: dict[str, Tensor], table: list[tuple[str, str]]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in weights.items():
        for theirs, ours in table:
            key = re.sub(theirs, ours, key)
        renamed[key] = tensor
    return renamed


def _unet(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    config = pipeline.unet.config
    layers, num_blocks = config.layers_per_block, len(config.block_out_channels)
    table = [
        (r"^time_embedding\.linear_1", "time_embed.0"),
        (r"^time_embedding\.linear_2", "time_embed.2"),
        (r"^add_embedding\.linear_1", "label_emb.0.0"),
        (r"^add_embedding\.linear_2", "label_emb.0.2"),
        (r"^conv_in", "input_blocks.0.0"),
        (r"^conv_norm_out", "out.0"),
        (r"^conv_out", "out.2"),
        (r"^mid_block\.attentions\.0", "middle_block.1"),
        (r"^mid_block\.resnets\.0", "middle_block.0"),
        (r"^mid_block\.resnets\.1", "middle_block.2"),
    ]
    for i in range(num_blocks):
        for j in range(layers):
            place = f"input_blocks.{(layers + 1) * i + j + 1}"
            table += [
                (rf"^down_blocks\.{i}\.resnets\.{j}\.", f"{place}.0."),
                (rf"^down_blocks\.{i}\.attentions\.{j}\.", f"{place}.1."),
            ]
        table.append((rf"^down_blocks\.{i}\.downsamplers\.0\.conv", f"input_blocks.{(layers + 1) * (i + 1)}.0.op"))
        for j in range(layers + 1):
            place = f"output_blocks.{(layers + 1) * i + j}"
            table += [
                (rf"^up_blocks\.{i}\.resnets\.{j}\.", f"{place}.0."),
                (rf"^up_blocks\.{i}\.attentions\.{j}\.", f"{place}.1."),
            ]
        after = 2 if "CrossAttn" in config.up_block_types[i] else 1
        last = (layers + 1) * i + layers
        table.append((rf"^up_blocks\.{i}\.upsamplers\.0", f"output_blocks.{last}.{after}"))
    table += [
        (r"^((?!.*transformer_blocks).*)\.norm1\.", r"\1.in_layers.0."),
        (r"^((?!.*transformer_blocks).*)\.conv1\.", r"\1.in_layers.2."),
        (r"^((?!.*transformer_blocks).*)\.norm2\.", r"\1.out_layers.0."),
        (r"^((?!.*transformer_blocks).*)\.conv2\.", r"\1.out_layers.3."),
        (r"\.time_emb_proj\.", ".emb_layers.1."),
        (r"\.conv_shortcut\.", ".skip_connection."),
    ]
    return _replaced(pipeline.unet.state_dict(), table)


def _vae(pipeline: DiffusionPipeline) -> dict[str, Tensor]:
    last = len(pipeline.vae.config.block_out_channels) - 1
    table = [
        (r"conv_shortcut", "nin_shortcut"),
        (r"conv_norm_out", "norm_out"),
        (r"mid_block\.attentions\.0\.", "mid.attn_1."),
        (r"mid_block\.resnets\.0\.", "mid.block_1."),
        (r"mid_block\.resnets\.1\.", "mid.block_2."),
        (r"down_blocks\.(\d+)\.resnets\.(\d+)\.", r"down.\1.block.\2."),
        (r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample."),
        *((rf"up_blocks\.{i}\.resnets\.(\d+)\.", rf"up.{last - i}.block.\1.") for i in range(last + 1)),
        *((rf"up_blocks\.{i}\.upsamplers\.0\.", f"up.{last - i}.upsample.") for i in range(last + 1)),
        (r"attn_1\.group_norm", "attn_1.norm"),
        (r"attn_1\.to_([qkv])\.", r"attn_1.\1."),
        (r"attn_1\.to_out\.0", "attn_1.proj_out"),
    ]
    weights = _replaced(pipeline.vae.state_dict(), table)
    is_linear = re.compile(r"attn_1\.(q|k|v|proj_out)\.weight")
    return {key: t[..., None, None] if is_linear.search(key) else t for key, t in weights.items()}


def _text_model(encoder: torch.nn.Module) -> dict[str, Tensor]:
    return {key.removeprefix("text_model."): tensor for key, tensor in encoder.state_dict().items()}


def _clip(encoder: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}text_model.{key}": tensor for key, tensor in _text_model(encoder).items()}


def _open_clip(encoder: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    table = [
        (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"^embeddings\.token_embedding", "token_embedding"),
        (r"^final_layer_norm", "ln_final"),
        (r"^encoder\.layers", "transformer.resblocks"),
        (r"layer_norm([12])", r"ln_\1"),
        (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
        (r"self_attn\.out_proj", "attn.out_proj"),
    ]
    weights = _replaced(_text_model(encoder), table)
    joined: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        if key == "text_projection.weight":
            joined["text_projection"] = tensor.T
        elif match := re.fullmatch(r"(.*)\.self_attn\.q_proj\.(weight|bias)", key):
            parts = [weights[f"{match[1]}.self_attn.{name}_proj.{match[2]}"] for name in "qkv"]
            joined[f"{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(parts)
        elif ".self_attn." not in key:
            joined[key] = tensor
    if "text_projection" not in joined:  # OpenCLIP always has one; 2.x does not use it
        joined["text_projection"] = torch.zeros(2 * [encoder.config.hidden_size])
    return {f"{prefix}{key}": tensor for key, tensor in joined.items()}
