"""Import and export: checkpoints of the authors' MaskFormer and our model folders hold the same weights.

official_weights.py has the names of the weights, official_settings.py the settings of the authors' config.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, ResNetConfig

from diffground.atomic import atomic_file, write_atomically
from diffground.errors import UserError, in_one_line
from diffground.segmentation.maskformer import GROUPS, MaskFormerSegmenter
from diffground.segmentation.official_settings import official_settings
from diffground.segmentation.official_weights import COUNTER, PREDICTOR, from_official, to_official
from diffground.state_dict import check_tensor, read_state_dict

_REMEDY = (
    "give a .pth that the authors' train_net.py wrote for a MaskFormer with a ResNet and BasePixelDecoder, see "
    "docs/detectron2.md"
)
_HEADS = 8
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
    write_atomically(settings_file, yaml.safe_dump(_nested({"VERSION": 2, **settings})))
    with atomic_file(file) as partial:
        torch.save({"model": to_official(model.state_dict())}, partial)
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
    weights = {name: tensor for name, tensor in state.items() if not name.endswith(f".{COUNTER}")}
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
    num_queries, width = shape(f"{PREDICTOR}.query_embed.weight")[:2]
    fpn_width = shape("sem_seg_head.pixel_decoder.layer_4.weight")[0]
    if width % _HEADS or fpn_width % GROUPS:
        raise UserError(
            f"{file}: must have a decoder width that is a multiple of {_HEADS}, and one of the pixel decoder of "
            f"{GROUPS}, has {width} and {fpn_width}; {_REMEDY}"
        )
    ffn_dim = shape(f"{PREDICTOR}.transformer.decoder.layers.0.linear1.weight")[0]
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
        decoder_layers=count(rf"{re.escape(PREDICTOR)}\.transformer\.decoder\.layers\.(\d+)\."),
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
        num_labels=shape(f"{PREDICTOR}.class_embed.weight")[0] - 1,
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
