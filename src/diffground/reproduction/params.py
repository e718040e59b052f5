"""params.yaml -> Params: every key known, every value of the right type and in its range."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from diffground.errors import UserError
from diffground.vocabulary import STICKER_TABLES, TABLES, load_vocabulary

P = TypeVar("P")

_NOT_NEGATIVE = {
    "data.seed", "data.num_train", "data.num_val",
    "prompts.seed", "prompts.num_train_one", "prompts.num_train_two", "prompts.test_per_category",
    "prompts.test_per_pair", "prompts.synthesis_per_category", "prompts.synthesis_per_pair",
    "generator.guidance_scale", "inversion.num_train", "inversion.num_val", "inversion.fixed_point_iterations",
    "grounding.gain_timesteps", "grounding.query_noise", "grounding.weight_decay", "grounding.seed",
    "segmenter.backbone_lr_factor", "segmenter.weight_decay", "segmenter.seed",
    "text2mask.num_images", "text2mask.power", "text2mask.crf_iterations", "text2mask.crf_weight", "text2mask.seed",
    "runtime.num_training_processes",
}  # fmt: skip
_POSITIVE = {
    "grounding.learning_rate", "segmenter.learning_rate", "runtime.checkpoint_every_s",
    "text2mask.threshold", "text2mask.crf_position_frac", "text2mask.crf_colour_scale",
}  # fmt: skip
_FRACTIONS = {
    "detector.score_threshold", "detector.mask_threshold", "inversion.min_area_frac",
    "grounding.mask_threshold", "grounding.text_drop", "grounding.decay_frac", "prompts.context_frac",
    "text2mask.noise_frac", "text2mask.threshold", "text2mask.uncertain_band",
}  # fmt: skip
_CHOICES = {
    "vocabulary.name": TABLES,
    "vocabulary.pairs": ("table", "data", "data_val"),
    "data.source": ("stickers", "voc", "coco"),
    "data.annotations": ("instances", "panoptic"),
    "generator.dtype": ("auto", "float32", "bfloat16", "float16"),
    "detector.backend": ("torchvision", "transformers", "detectron2"),
    "grounding.tokens_at": ("features", "image"),
    "grounding.branches": ("conditional", "both"),
    "grounding.training_data": ("sim", "real", "both"),
    "grounding.training_type": ("without_zero_masks", "normal"),
    "segmenter.training_sets": ("synthetic", "synthetic_and_real_seen", "real_seen_only", "text2mask", "real_all"),
    "text2mask.threshold_from": ("generated", "fixed"),
    "segmenter.matching": ("bipartite", "fixed"),
    "runtime.backend": ("local", "ray"),
    "grounding.mixed_precision": ("none", "bf16", "fp16"),
    "segmenter.mixed_precision": ("none", "bf16", "fp16"),
}
_MAY_BE_EMPTY = {"data.root", "prompts.contexts", "runtime.ray_address"}


def read_params(path: Path, kind: type[P]) -> P:
    """Read the YAML file `path` into the dataclass `kind`.

    Raises: UserError, one line with key, rule, value and file, for a missing file, text that is no YAML, an unknown,
    missing or repeated key, a wrong type, and a value out of its range.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not path.is_file():
        raise UserError(f"{path}: no such file; run `diffground profile mini` in the repository root")
    try:
        # OmegaConf reads 1e-4 as a number, as Hydra does; plain YAML 1.1 makes it a string
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    return build_params(values, kind, source=str(path))


def build_params(values: Any, kind: type[P], *, source: str) -> P:
    """`values` (nested dicts) as the dataclass `kind`; `source` stands in the messages. Raises: UserError."""
    try:
        params = _build(kind, values, "")
        _check_together(params)
    except UserError as error:
        raise UserError(f"{error} ({source})") from None
    return params


def flat_params(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Nested parameters as 'section.key' -> value, at any depth, in their order; what is no section keeps its name."""
    flat: dict[str, Any] = {}
    for name, value in sections.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in flat_params(value).items()}
        else:
            flat[name] = value
    return flat


def _build(kind: Any, value: Any, key: str) -> Any:
    if is_dataclass(kind):
        return _build_section(kind, value, key)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise _wrong_type(key, f"a list of {_name(get_args(kind)[0])}", value)
        return tuple(_build(get_args(kind)[0], entry, f"{key}[{i}]") for i, entry in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise _wrong_type(key, _name(kind), value)
    _check_range(key, value)
    return value


def _build_section(kind: Any, value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong_type(key or "the file", "a section of keys and values", value)
    hints = get_type_hints(kind)
    prefix = f"{key}." if key else ""
    names = [field.name for field in fields(kind)]
    for name in value:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            advice = f"did you mean '{prefix}{near[0]}'?" if near else f"known here: {', '.join(names)}"
            raise UserError(f"'{prefix}{name}' is not a parameter; {advice}")
    for name in names:
        if name not in value:
            raise UserError(f"'{prefix}{name}' is missing; add it, or run `diffground profile mini` for a whole file")
    return kind(**{name: _build(hints[name], value[name], f"{prefix}{name}") for name in names})


def _check_range(key: str, value: Any) -> None:
    """Raises: UserError for a value outside the range of its key; counts and sizes are 1 or more unless named above."""
    rule = key.partition("[")[0]  # the entries of a list share its rule
    if rule in _CHOICES and value not in _CHOICES[rule]:
        near = difflib.get_close_matches(str(value), _CHOICES[rule], n=1)
        advice = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"{key} must be one of {', '.join(_CHOICES[rule])}, got '{value}'{advice}")
    if isinstance(value, str) and not value and rule not in _MAY_BE_EMPTY:
        raise UserError(f"{key} must not be empty")
    if isinstance(value, (bool, str)):
        return
    if not math.isfinite(value):
        raise UserError(f"{key} must be a finite number, got {value}")
    if rule in _FRACTIONS and not 0 <= value <= 1:
        raise UserError(f"{key} must be in 0..1, got {value}")
    if rule in _NOT_NEGATIVE and value < 0:
        raise UserError(f"{key} must not be negative, got {value}")
    if rule in _POSITIVE and value <= 0:
        raise UserError(f"{key} must be greater than 0, got {value}")
    if isinstance(value, int) and rule not in _NOT_NEGATIVE and value < 1:
        raise UserError(f"{key} must be at least 1, got {value}")


def _check_together(params: Any) -> None:
    """Rules that concern more than one key."""
    vocabulary, data, generator, grounding = params.vocabulary, params.data, params.generator, params.grounding
    load_vocabulary(vocabulary.name, unseen=vocabulary.unseen, seen=vocabulary.seen)
    if vocabulary.pairs == "table" and vocabulary.name != "pascal":
        raise UserError(
            f"vocabulary.pairs must be 'data' or 'data_val' for '{vocabulary.name}', which has no table of pairs"
        )
    if data.source == "stickers" and vocabulary.name not in STICKER_TABLES:
        raise UserError(
            f"vocabulary.name must be one of {', '.join(STICKER_TABLES)} where data.source is 'stickers', "
            f"got '{vocabulary.name}'"
        )
    if data.source in ("voc", "coco") and not data.root:
        what = {"voc": "of the devkit", "coco": "of COCO 2017"}[data.source]
        raise UserError(f"data.root must not be empty where data.source is '{data.source}'; name the folder {what}")
    if data.train_list == data.val_list:
        raise UserError(f"data.train_list and data.val_list must differ, got '{data.val_list}' for both")
    if generator.tapped_step > generator.num_steps:
        raise UserError(
            f"generator.tapped_step must be at most generator.num_steps ({generator.num_steps}), "
            f"got {generator.tapped_step}"
        )
    if grounding.training_data != "sim" and not params.inversion.num_train:
        raise UserError(
            f"inversion.num_train must be at least 1 where grounding.training_data is '{grounding.training_data}', "
            f"got {params.inversion.num_train}"
        )
    if grounding.embed_dim % grounding.num_heads:
        raise UserError(
            f"grounding.embed_dim must be a multiple of grounding.num_heads ({grounding.num_heads}), "
            f"got {grounding.embed_dim}"
        )
    if "text2mask" in params.segmenter.training_sets and not params.text2mask.num_images:
        raise UserError(
            "text2mask.num_images must be at least 1 where 'text2mask' is one of segmenter.training_sets, got 0"
        )


def _wrong_type(key: str, expected: str, value: Any) -> UserError:
    given = "nothing" if value is None else f"{_name(type(value))} {value!r}"
    return UserError(f"{key} must be {expected}, got {given}")


def _name(kind: type) -> str:
    words: dict[type, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return words.get(kind, kind.__name__)
