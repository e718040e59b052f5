"""Checkpoints of the authors' MaskFormer (github.com/facebookresearch/MaskFormer, on detectron2) and our segmenters.

Three parts: import and export, the settings of their config, and the names of the weights. Both networks have the same
layers. The authors keep a normalisation inside its convolution, count stages from 2, and hold the query, key and value
projections of an attention as one matrix, as torch's MultiheadAttention does.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, ResNetConfig

from diffground.atomic import atomic_file, write_atomically
from diffground.errors import UserError, in_one_line
from diffground.segmentation.maskformer import GROUPS, MEAN, STD, MaskFormerSegmenter
from diffground.state_dict import check_tensor, read_state_dict

_REMEDY = "give a .pth that the authors' train_net.py wrote for a MaskFormer with a ResNet and BasePixelDecoder"
_COUNTER = "num_batches_tracked"
_HEADS = 8
_HEAD = "sem_seg_head"
_PREDICTOR = f"{_HEAD}.predictor"
_METADATA = {"sem_seg_head": {"version": 2}}
"""Without it the authors' MaskFormerHead takes the weights for those of an older layout, and renames them."""
_INPUT = {"INPUT.FORMAT": "RGB", "MODEL.RESNETS.RES4_DILATION": 1, "MODEL.RESNETS.RES5_DILATION": 1}
"""Settings of ours that official_settings leaves at detectron2's, and what reads the images."""
_UNSEEN_IN_WEIGHTS = (
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.RESNETS.STRIDE_IN_1X1",
    "MODEL.MASK_FORMER.NHEADS",
    "MODEL.MASK_FORMER.PRE_NORM",
    *_INPUT,
)
"""Settings that change what a network predicts, but no name or shape of its weights."""
_DATA_SET = "diffground"  # MaskFormer looks up detectron2's metadata for it, which is empty
_DEPTHS = {
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
    ("bottleneck", (3, 8, 36, 3)): 152,
}
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


def import_maskformer(file: Path, folder: Path, *, categories: Sequence[str], image_size: int) -> str:
    """Read the checkpoint `file`, write the segmenter `folder` and return a one-line description.

    Sizes are read from the tensors. What no tensor shows (normalisation, heads, strides) has to be as
    official_settings says: it is compared with config.yaml, which detectron2 writes next to a checkpoint. Without it
    the settings are assumed, and both the card and the returned line say so.
    categories: what the classes are, after class 0, the background. image_size: input, px, of the network.
    Raises: UserError when the file is missing, is more than plain tensors or no such MaskFormer, has another number of
    classes or other settings, and when the folder already holds a model.
    """
    if (folder / "config.json").exists():
        raise UserError(f"{folder}: holds a model already; delete it or name another folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: must be a folder, is a file; name another one")
    state = _read_checkpoint(file)
    config = _config_of(file, state)
    if config.num_labels != 1 + len(categories):
        raise UserError(
            f"{file}: has {config.num_labels} classes, must have {1 + len(categories)}: the background and the "
            f"{len(categories)} categories of params.yaml; compose the profile whose categories it was trained on"
        )
    settings = _settings_of(file, config)
    is_checked = _check_settings(file.with_name("config.yaml"), settings)
    model = MaskFormerForInstanceSegmentation(config)
    _check_weights(file, state, expected=to_official(model.state_dict()))
    model.load_state_dict(from_official(state))
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    segmenter = MaskFormerSegmenter(model, categories=categories, image_size=image_size, device=torch.device("cpu"))
    checked = "checked in config.yaml" if is_checked else "not checked, because no config.yaml lies next to the file"
    segmenter.save(folder, card=_card(file.name, sha256=sha256, checked=checked, settings=settings))
    depth, num_queries = settings["MODEL.RESNETS.DEPTH"], config.decoder_config.num_queries
    return (
        f"MaskFormer, ResNet-{depth}, {num_queries} queries, {config.num_labels} classes; what its weights do not show "
        f"(normalisation, heads, strides) was {checked}"
    )


def export_maskformer(folder: Path, file: Path) -> tuple[Path, Path]:
    """Write the segmenter `folder` as checkpoint `file` (.pth) and its settings next to it (.yaml); return both paths.

    The checkpoint is {"model": state dict}, as detectron2's DetectionCheckpointer reads and writes it.
    Raises: UserError for a folder that is no segmenter, one whose backbone detectron2 cannot build, and a file that
    already exists.
    """
    settings_file = file.with_suffix(".yaml")
    if file.suffix != ".pth":
        raise UserError(f"{file}: must end in .pth; name another file")
    for path in (file, settings_file):
        if path.exists():
            raise UserError(f"{path}: exists already; delete it or name another file")
    model = MaskFormerSegmenter.load(folder, device=torch.device("cpu")).model
    settings = _settings_of(folder, model.config)
    state = OrderedDict((name, tensor.contiguous()) for name, tensor in to_official(model.state_dict()).items())
    state._metadata = _METADATA  # type: ignore[attr-defined] # where torch's load_state_dict looks for it
    write_atomically(settings_file, yaml.safe_dump(_nested({"VERSION": 2, **settings})))
    with atomic_file(file) as partial:
        torch.save({"model": state}, partial)
    return file, settings_file


def _settings_of(path: Path, config: MaskFormerConfig) -> dict[str, Any]:
    """Keys of the authors' config and their values. Raises: UserError for a backbone that detectron2 cannot build."""
    try:
        return {**official_settings(config.to_dict()), **_INPUT}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The weights, float32, under the authors' names; the numbers of batches that batch norms saw are left out."""
    state = read_state_dict(file, remedy=_REMEDY)
    weights = {name: tensor for name, tensor in state.items() if not name.endswith(f".{_COUNTER}")}
    for name, tensor in weights.items():
        check_tensor(file, name, tensor, remedy=_REMEDY)
    return {name: tensor.float() for name, tensor in weights.items()}


def _config_of(file: Path, state: Mapping[str, Tensor]) -> MaskFormerConfig:
    """The network that has weights of these names and shapes, as build_maskformer makes one.

    Raises: UserError when a weight that every such network has is missing, and when sizes do not fit each other.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in state:
            raise UserError(f"{file}: '{name}' is missing; {_REMEDY}")
        return (*state[name].shape, 1, 1)  # two sizes can be read at any rank; _check_weights compares all

    def count(pattern: str) -> int:
        numbers = (re.match(pattern, name) for name in state)
        return 1 + max((int(match[1]) for match in numbers if match), default=-1)

    is_bottleneck = "backbone.res2.0.conv3.weight" in state
    last_conv = "conv3" if is_bottleneck else "conv2"
    num_queries, width = shape(f"{_PREDICTOR}.query_embed.weight")[:2]
    fpn_width = shape("sem_seg_head.pixel_decoder.layer_4.weight")[0]
    if width % _HEADS or fpn_width % GROUPS:
        raise UserError(
            f"{file}: must have a decoder width that is a multiple of {_HEADS}, and one of the pixel decoder of "
            f"{GROUPS}, has {width} and {fpn_width}; {_REMEDY}"
        )
    ffn_dim = shape(f"{_PREDICTOR}.transformer.decoder.layers.0.linear1.weight")[0]
    backbone = ResNetConfig(
        embedding_size=shape("backbone.stem.conv1.weight")[0],
        hidden_sizes=[shape(f"backbone.res{stage}.0.{last_conv}.weight")[0] for stage in range(2, 6)],
        depths=[count(rf"backbone\.res{stage}\.(\d+)\.") for stage in range(2, 6)],
        layer_type="bottleneck" if is_bottleneck else "basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    decoder = DetrConfig(
        backbone_config=backbone,
        num_queries=num_queries,
        d_model=width,
        encoder_layers=0,
        decoder_layers=count(rf"{re.escape(_PREDICTOR)}\.transformer\.decoder\.layers\.(\d+)\."),
        decoder_ffn_dim=ffn_dim,
        encoder_ffn_dim=ffn_dim,
        encoder_attention_heads=_HEADS,
        decoder_attention_heads=_HEADS,
        dropout=0.1,
    )
    return MaskFormerConfig(
        backbone_config=backbone,
        decoder_config=decoder,
        fpn_feature_size=fpn_width,
        mask_feature_size=shape("sem_seg_head.pixel_decoder.mask_features.weight")[0],
        num_labels=shape(f"{_PREDICTOR}.class_embed.weight")[0] - 1,
    )


def _check_settings(file: Path, settings: Mapping[str, Any]) -> bool:
    """Whether there is a config `file`. Raises: UserError when it says otherwise than `settings`."""
    if not file.is_file():
        return False
    try:
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        reason = in_one_line(error)
        raise UserError(f"{file}: not valid YAML ({reason}); restore it, or move the checkpoint away from it") from None
    for key in _UNSEEN_IN_WEIGHTS:
        found = reduce(lambda node, part: node.get(part) if isinstance(node, dict) else None, key.split("."), written)
        if found != settings[key]:
            raise UserError(
                f"{file}: {key} must be {settings[key]}, is {'not set' if found is None else found}; train with the "
                "settings that `diffground export-maskformer` writes"
            )
    return True


def _check_weights(file: Path, state: Mapping[str, Tensor], *, expected: Mapping[str, Tensor]) -> None:
    for names, problem in (
        (expected.keys() - state.keys(), "is missing"),
        (state.keys() - expected.keys(), "is no weight of such a network"),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise UserError(f"{file}: {min(names)!r} {problem}{more}; {_REMEDY}")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            must, has = tuple(expected[name].shape), tuple(tensor.shape)
            raise UserError(f"{file}: '{name}' must have shape {must}, has {has}; {_REMEDY}")


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keys 'A.B.C' -> mappings in mappings."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *above, last = key.split(".")
        reduce(lambda node, part: node.setdefault(part, {}), above, nested)[last] = value
    return nested


def _card(file_name: str, *, sha256: str, checked: str, settings: Mapping[str, Any]) -> str:
    granted = "\n".join(f"  - {key}: {settings[key]}" for key in _UNSEEN_IN_WEIGHTS)
    return f"""# MaskFormer, trained with its authors' code

- Made by: `diffground import-maskformer {file_name}`; SHA-256 of that file: `{sha256}`. The weights are unchanged.
- Data, recipe: not known here.
- Labels: 0 background, i the i-th of `categories` in config.json.
- What the weights do not show, {checked}:
{granted}
- Licence: that of the checkpoint's authors.
"""


def official_settings(maskformer: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the authors' config, and their values, for a MaskFormerConfig of build_maskformer given as a dict.

    Raises: UserError for a backbone that their code cannot build.
    """
    backbone, decoder = maskformer["backbone_config"], maskformer["decoder_config"]
    widths, depths = backbone["hidden_sizes"], tuple(backbone["depths"])
    depth = _DEPTHS.get((backbone["layer_type"], depths))
    doubles = widths == [widths[0] * 2**i for i in range(len(widths))]
    # detectron2 has no other widths of the two small ones, and a first stage of stride 4 only
    if depth is None or not doubles or (depth < 50 and widths[0] != 64) or backbone["downsample_in_first_stage"]:
        raise UserError(
            "segmenter.backbone: the authors' MaskFormer needs a ResNet-18, 34, 50, 101 or 152, got one of "
            f"{backbone['layer_type']} blocks {list(depths)}, widths {widths}; use MaskFormerSegmenter for it"
        )
    return {
        "MODEL.META_ARCHITECTURE": "MaskFormer",
        "MODEL.PIXEL_MEAN": [255 * MEAN] * 3,
        "MODEL.PIXEL_STD": [255 * STD] * 3,
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": backbone["embedding_size"],
        "MODEL.RESNETS.RES2_OUT_CHANNELS": widths[0],
        "MODEL.RESNETS.WIDTH_PER_GROUP": widths[0] // 4,  # of a bottleneck's 3x3 convolution
        "MODEL.RESNETS.STRIDE_IN_1X1": backbone["downsample_in_bottleneck"],
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
        "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
        "MODEL.SEM_SEG_HEAD.NORM": "GN",
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": maskformer["fpn_feature_size"],
        "MODEL.SEM_SEG_HEAD.MASK_DIM": maskformer["mask_feature_size"],
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": len(maskformer["id2label"]),
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
        "MODEL.MASK_FORMER.HIDDEN_DIM": decoder["d_model"],
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": decoder["num_queries"],
        "MODEL.MASK_FORMER.NHEADS": decoder["decoder_attention_heads"],
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD": decoder["decoder_ffn_dim"],
        "MODEL.MASK_FORMER.DEC_LAYERS": decoder["decoder_layers"],
        "MODEL.MASK_FORMER.ENC_LAYERS": 0,
        "MODEL.MASK_FORMER.DROPOUT": decoder["dropout"],
        "MODEL.MASK_FORMER.PRE_NORM": False,
        "MODEL.MASK_FORMER.SIZE_DIVISIBILITY": 0,  # no padding
        "MODEL.MASK_FORMER.TEST.SEMANTIC_INFERENCE_METHOD": "probabilistic",
        "MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": True,
        "DATASETS.TRAIN": [_DATA_SET],
    }


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of transformers' MaskFormerForInstanceSegmentation under the authors' names.

    The numbers of batches that batch norms have seen are left out: the authors' frozen norms have none.
    Raises: UserError for a name that MaskFormer with a ResNet does not have.
    """
    joined = {}
    for name, tensor in state.items():
        match = _PROJECTION.fullmatch(name)
        if match is None:
            joined[name] = tensor
        elif match[2] == _PROJECTIONS[0]:
            parts = [state[f"{match[1]}.{projection}.{match[3]}"] for projection in _PROJECTIONS]
            joined[f"{match[1]}.in_proj_{match[3]}"] = torch.cat(parts)  # (3 D, D) or (3 D,)
    return _rename(joined, dict(_modules(_num_layers(state))))


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
        if kind == _COUNTER:
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
    yield f"{_QUERIES}.queries_embedder", f"{_PREDICTOR}.query_embed"
    yield f"{_QUERIES}.input_projection", f"{_PREDICTOR}.input_proj"
    for i in range(num_layers):
        for ours, theirs in _LAYER.items():
            yield f"{_QUERIES}.decoder.layers.{i}.{ours}", f"{_PREDICTOR}.transformer.decoder.layers.{i}.{theirs}"
    yield f"{_QUERIES}.decoder.layernorm", f"{_PREDICTOR}.transformer.decoder.norm"
    yield "class_predictor", f"{_PREDICTOR}.class_embed"
    for i in range(_MLP_LAYERS):
        yield f"mask_embedder.{i}.0", f"{_PREDICTOR}.mask_embed.layers.{i}"
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
