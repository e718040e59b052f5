"""params.yaml -> Params: every key known, every value of the right type and in its range."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from diffground.errors import UserError, in_one_line
from diffground.ranges import Fraction
from diffground.segmentation.config import check_backend
from diffground.vocabulary import closest

P = TypeVar("P")

_MISSPELT = "unexpected_keyword_argument"
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a section of keys and values",
}


def read_params(path: Path, kind: type[P]) -> P:
    """Read the YAML file `path` into the dataclass `kind`.

    Raises: UserError, one line with key, rule, value and file, for a missing file, text that is no YAML, an unknown,
    missing or repeated key, a wrong type, and a value out of its range.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not path.is_file():
        raise UserError(f"{path}: no such file; run `diffground profile mini` in the repository root")
    try:
        # OmegaConf reads 1e-4 as a number, as Hydra does; plain YAML 1.1 makes it a string
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {in_one_line(error, limit=None)}") from None
    return build_params(values, kind, source=str(path))


def build_params(values: Any, kind: type[P], *, source: str) -> P:
    """`values` (nested dicts) as the dataclass `kind`; messages name `source`. Raises: UserError."""
    try:
        # strict, but a list is read as a tuple and a section as its dataclass: as JSON they have no other form
        params = TypeAdapter(kind).validate_json(json.dumps(values, default=str), strict=True)
        _check_together(params)
    except ValidationError as error:
        # a misspelt key is missing as well; the error that names the right one goes first
        first = min(error.errors(), key=lambda problem: problem["type"] != _MISSPELT)
        raise UserError(f"{_message(first, kind)} ({source})") from None
    except UserError as error:
        raise UserError(f"{error} ({source})") from None
    return params


def flat_params(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Nested parameters as 'section.key' -> value, at any depth, in their order; other values keep their name."""
    flat: dict[str, Any] = {}
    for name, value in sections.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in flat_params(value).items()}
        else:
            flat[name] = value
    return flat


def _message(problem: ErrorDetails, kind: Any) -> str:
    """Key, rule and value of an error that pydantic found in values for the dataclass `kind`."""
    location, value, limits = problem["loc"], problem["input"], problem.get("ctx", {})
    key = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")
    if problem["type"] == "missing":
        return f"'{key}' is missing; add it, or run `diffground profile mini` for a whole file"
    if problem["type"] == _MISSPELT:
        known = [field.name for field in fields(_type_at(location[:-1], kind))]
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        section = key.removesuffix(str(location[-1]))
        advice = f"did you mean '{section}{near[0]}'?" if near else f"known here: {', '.join(known)}"
        return f"'{key}' is not a parameter; {advice}"
    expected = _type_at(location, kind)
    plain = get_args(expected)[0] if get_origin(expected) is Annotated else expected
    match problem["type"]:
        case "literal_error" if isinstance(value, str):
            choices = get_args(expected)
            near = difflib.get_close_matches(value, choices, n=1)
            advice = f"; did you mean '{near[0]}'?" if near else ""
            return f"{key} must be one of {', '.join(choices)}, got '{value}'{advice}"
        case "string_too_short":
            return f"{key} must not be empty"
        case "finite_number":
            rule = "be a finite number"
        case "less_than_equal":
            rule = f"be in 0..{limits['le']:g}"
        case "greater_than_equal" if expected == Fraction:
            rule = "be in 0..1"
        case "greater_than_equal":
            rule = f"be at least {limits['ge']}" if limits["ge"] else "not be negative"
        case "greater_than":
            rule = f"be greater than {limits['gt']:g}"
        case _:
            given = "nothing" if value is None else f"{_in_words(type(value))} {value!r}"
            return f"{key or 'the file'} must be {_in_words(plain)}, got {given}"
    return f"{key} must {rule}, got {plain(value)}"


def _type_at(location: Sequence[int | str], kind: Any) -> Any:
    """Type of the field at `location` of the dataclass `kind`, with its range."""
    for step in location:
        kind = get_args(kind)[0] if isinstance(step, int) else get_type_hints(kind, include_extras=True)[step]
    return kind


def _in_words(kind: Any) -> str:
    if get_origin(kind) is tuple:
        entry = get_args(kind)[0]
        return f"a list of {_in_words(get_args(entry)[0] if get_origin(entry) is Annotated else entry)}"
    return _WORDS[str if get_origin(kind) is Literal else dict if is_dataclass(kind) else kind]


def _check_together(params: Any) -> None:
    """Rules that concern more than one key."""
    vocabulary, data, generator, grounding = params.vocabulary, params.data, params.generator, params.grounding
    categories = vocabulary.load().categories
    if data.source == "stickers":
        drawn = _drawn_categories()  # once: reading the table takes as long as all the other checks
        without_art = [category for category in categories if category not in drawn]
        if without_art:
            raise UserError(
                f"{vocabulary.file}: data.source 'stickers' has no art of '{without_art[0]}'; take another source of "
                f"real images, or 'none'"
            )
    if data.source not in ("none", "stickers") and not data.root:
        what = {"voc": "of the devkit", "coco": "of COCO 2017", "folder": "that has a folder 'images'"}[data.source]
        raise UserError(f"data.root must not be empty where data.source is '{data.source}'; name the folder {what}")
    if data.source == "none":
        _check_without_real_images(params)
    if data.annotations not in ("instances", "panoptic") and not data.annotations.endswith(".json"):
        near = closest(data.annotations, ("instances", "panoptic"))
        advice = "" if near == "none" else f"; did you mean '{near}'?"
        raise UserError(
            f"data.annotations must be instances, panoptic or a path that ends in .json, "
            f"got '{data.annotations}'{advice}"
        )
    if data.binary_label and data.source not in ("voc", "folder"):
        raise UserError(
            f"data.binary_label must be '' where data.source is '{data.source}', which has no masks of 0 and 255, "
            f"got '{data.binary_label}'"
        )
    if data.train_list == data.val_list:
        raise UserError(f"data.train_list and data.val_list must differ, got '{data.val_list}' for both")
    if generator.tapped_step > generator.num_steps:
        raise UserError(
            f"generator.tapped_step must be at most generator.num_steps ({generator.num_steps}), "
            f"got {generator.tapped_step}"
        )
    interval = generator.guidance_interval
    if interval and generator.timesteps and not any(interval[-1] <= t <= interval[0] for t in generator.timesteps):
        raise UserError(
            f"generator.guidance_interval {list(interval)} contains none of generator.timesteps, so there would be no "
            f"guidance; set it to [] for guidance at all steps, or generator.guidance_scale to 1 for none"
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
    check_backend(params.segmenter)
    if "text2mask" in params.segmenter.training_sets and not params.text2mask.num_images:
        raise UserError(
            "text2mask.num_images must be at least 1 where 'text2mask' is one of segmenter.training_sets, got 0"
        )


def _drawn_categories() -> set[str]:
    """Every concept that the mini world has artwork of. Its module is not imported: stages would depend on it."""
    table = yaml.safe_load(files("diffground.data.stickers").joinpath("art.yaml").read_text(encoding="utf-8"))
    return {*table["voc"], *table["further"]}


def _check_without_real_images(params: Any) -> None:
    """Raises: UserError for what needs real images."""
    numbers = ("inversion.num_train", "inversion.num_val", "text2mask.num_images")
    for section, key in (name.split(".") for name in numbers):
        if getattr(getattr(params, section), key):
            raise UserError(f"{section}.{key} must be 0 where data.source is 'none': there are no real images")
    if params.vocabulary.pairs != "file":
        raise UserError("vocabulary.pairs must be 'file' where data.source is 'none': there are no real images")
    if params.segmenter.training_sets != ("synthetic",):
        raise UserError("segmenter.training_sets must be [synthetic] where data.source is 'none'")
