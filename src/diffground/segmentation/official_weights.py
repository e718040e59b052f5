"""Names of MaskFormer's weights in transformers and in the authors' package (github.com/facebookresearch/MaskFormer).

Both networks have the same layers. The authors keep a normalisation inside its convolution, count stages from 2, and
hold the query, key and value projections of an attention as one matrix, as torch's MultiheadAttention does.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from diffground.errors import UserError

COUNTER = "num_batches_tracked"
_HEAD = "sem_seg_head"
PREDICTOR = f"{_HEAD}.predictor"
METADATA = {_HEAD: {"version": 2}}
"""Without it the authors' MaskFormerHead takes the weights for those of an older layout, and renames them."""
_ENCODER = "model.pixel_level_module.encoder"
_PIXELS = "model.pixel_level_module.decoder"
_QUERIES = "model.transformer_module"
_STAGES, _CONVS, _MLP_LAYERS = 4, 3, 3
_LAYER = {
    "self_attn": "self_attn", "self_attn.o_proj": "self_attn.out_proj", "self_attn_layer_norm": "norm1",
    "encoder_attn": "multihead_attn", "encoder_attn.o_proj": "multihead_attn.out_proj",
    "encoder_attn_layer_norm": "norm2", "mlp.fc1": "linear1", "mlp.fc2": "linear2", "final_layer_norm": "norm3",
}  # fmt: skip
"""Modules of a decoder layer."""
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_PROJECTION = re.compile(rf"(.+)\.({'|'.join(_PROJECTIONS)})\.(weight|bias)")
_JOINT = re.compile(r"(.+)\.in_proj_(weight|bias)")


def to_official(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """A state dict of transformers' MaskFormerForInstanceSegmentation under the authors' names, as their own model's
    state_dict() is: contiguous, with the version of its layout in `_metadata`, where torch's load_state_dict looks.

    The numbers of batches that batch norms have seen are left out: the authors' frozen norms have none.
    Raises: UserError for a name that MaskFormer with a ResNet does not have.
    """
    joined = {}
    for name, tensor in state.items():
        match = _PROJECTION.fullmatch(name)
        if match is None:
            joined[name] = tensor.contiguous()
        elif match[2] == _PROJECTIONS[0]:
            parts = [state[f"{match[1]}.{projection}.{match[3]}"] for projection in _PROJECTIONS]
            joined[f"{match[1]}.in_proj_{match[3]}"] = torch.cat(parts)  # (3 D, D) or (3 D,)
    official = OrderedDict(_rename(joined, dict(_modules(_num_layers(state)))))
    official._metadata = METADATA  # type: ignore[attr-defined]
    return official


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of to_official. Raises: UserError for a name that MaskFormer with a ResNet does not have."""
    split = {}
    for name, tensor in _rename(state, {theirs: ours for ours, theirs in _modules(_num_layers(state))}).items():
        match = _JOINT.fullmatch(name)
        if match is None:
            split[name] = tensor
        else:
            for projection, part in zip(_PROJECTIONS, tensor.chunk(len(_PROJECTIONS)), strict=True):
                split[f"{match[1]}.{projection}.{match[2]}"] = part.clone()  # (D, D) or (D,)
    return split


def _rename(state: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        if kind == COUNTER:
            continue
        if module not in modules:
            raise UserError(
                f"'{name}' is no weight of MaskFormer with a ResNet; convert checkpoints of that architecture only"
            )
        renamed[f"{modules[module]}.{kind}"] = tensor
    return renamed


def _num_layers(state: Mapping[str, Tensor]) -> int:
    """A bound on the number of layers or blocks in any row of them: the numbers in names count these."""
    return 1 + max((int(number) for name in state for number in re.findall(r"\d+", name)), default=0)


def _modules(num_layers: int) -> Iterator[tuple[str, str]]:
    """transformers' and the authors' names of the modules that hold weights."""
    yield from _backbone(num_layers)
    yield from _pixel_decoder()
    yield f"{_QUERIES}.queries_embedder", f"{PREDICTOR}.query_embed"
    yield f"{_QUERIES}.input_projection", f"{PREDICTOR}.input_proj"
    for i in range(num_layers):
        for ours, theirs in _LAYER.items():
            yield f"{_QUERIES}.decoder.layers.{i}.{ours}", f"{PREDICTOR}.transformer.decoder.layers.{i}.{theirs}"
    yield f"{_QUERIES}.decoder.layernorm", f"{PREDICTOR}.transformer.decoder.norm"
    yield "class_predictor", f"{PREDICTOR}.class_embed"
    for i in range(_MLP_LAYERS):
        yield f"mask_embedder.{i}.0", f"{PREDICTOR}.mask_embed.layers.{i}"
    yield "criterion", "criterion"


def _backbone(num_blocks: int) -> Iterator[tuple[str, str]]:
    convs = [(f"{_ENCODER}.embedder.embedder", "backbone.stem.conv1")]
    for stage in range(_STAGES):
        for block in range(num_blocks):
            ours, theirs = f"{_ENCODER}.encoder.stages.{stage}.layers.{block}", f"backbone.res{stage + 2}.{block}"
            convs.append((f"{ours}.shortcut", f"{theirs}.shortcut"))
            convs += [(f"{ours}.layer.{i}", f"{theirs}.conv{i + 1}") for i in range(_CONVS)]
    for ours, theirs in convs:
        yield f"{ours}.convolution", theirs
        yield f"{ours}.normalization", f"{theirs}.norm"


def _pixel_decoder() -> Iterator[tuple[str, str]]:
    """transformers counts the layers from the coarsest, the authors from the finest, from 1."""
    decoder = f"{_HEAD}.pixel_decoder"
    convs = [(f"{_PIXELS}.fpn.stem", f"{decoder}.layer_{_STAGES}")]
    for i in range(_STAGES - 1):
        ours, number = f"{_PIXELS}.fpn.layers.{i}", _STAGES - 1 - i
        convs += [(f"{ours}.proj", f"{decoder}.adapter_{number}"), (f"{ours}.block", f"{decoder}.layer_{number}")]
    for ours, theirs in convs:
        yield f"{ours}.0", theirs
        yield f"{ours}.1", f"{theirs}.norm"
    yield f"{_PIXELS}.mask_projection", f"{decoder}.mask_features"
