"""The reference of params.yaml, from the fields of diffground.reproduction.config and the profiles of conf/."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml
from annotated_types import Ge, Gt, Interval, MinLen
from plain_text import as_code, escape

from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import Params
from diffground.reproduction.params import build_params

PROFILES = ("mini", "smoke", "paper_voc", "paper_coco")
_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def params_reference(root: Path) -> str:
    """Markdown: a section per section of params.yaml, an entry per key with its type, range, meaning and values."""
    values = {name: asdict(_params(name, conf=root / "conf")) for name in PROFILES}
    hints = get_type_hints(Params, include_extras=True)
    blocks = []
    for section in (field.name for field in fields(Params)):
        if is_dataclass(hints[section]):
            blocks += _section(section, hints[section], {name: of[section] for name, of in values.items()})
    return "\n".join(blocks)


def _params(profile: str, *, conf: Path) -> Params:
    return build_params(yaml.safe_load(compose_params(profile, conf=conf)), Params, source=profile)


def _section(name: str, kind: type, values: dict[str, dict[str, Any]]) -> Iterator[str]:
    docs, hints = field_docs(kind), get_type_hints(kind, include_extras=True)
    yield f"## {name}\n\n{escape(inspect.getdoc(kind) or '')}\n"
    for field in fields(kind):
        in_profiles = "; ".join(f"{profile} {as_code(of[field.name])}" for profile, of in values.items())
        yield f"```{{confval}} {name}.{field.name}\n:type: {in_words(hints[field.name])}\n"
        yield f"{escape(docs[field.name])}\n\nProfiles: {in_profiles}\n```\n"


def field_docs(kind: type) -> dict[str, str]:
    """Field of a dataclass -> the string below it."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            assert isinstance(below.value, ast.Constant)
            docs[field.target.id] = inspect.cleandoc(below.value.value)
    return docs


def in_words(hint: Any) -> str:
    """A type of a field as text, with its range."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"list; each entry: {in_words(get_args(hint)[0])}"
    if get_origin(hint) is Annotated:
        plain, limit = get_args(hint)
        return f"{_WORDS[plain]}, {_range(limit)}"
    return _WORDS[hint]


def _range(limit: Any) -> str:
    match limit:
        case Ge(ge=low):
            return f"{low} or more"
        case Gt(gt=low):
            return f"above {low}"
        case MinLen():
            return "not empty"
        case Interval():
            return f"above {limit.gt}, to {limit.le}" if limit.ge is None else f"{limit.ge} to {limit.le}"
    raise TypeError(f"no words for {limit!r}")
