"""The named experiments: one file of conf/experiment each, whose opening comment says what it is for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from diffground.errors import UserError

CONF = Path("conf/experiment")
DEFAULT_PROFILE = "mini"
"""Experiments of this profile go by their plain names."""

_FIELD = re.compile(r"^# (\w+): (.+)$", re.MULTILINE)
_FIELDS = ("source", "command", "target", "time", "expected")


@dataclass(frozen=True)
class Experiment:
    """The opening comment of conf/experiment/NAME.yaml."""

    name: str
    source: str
    """Table and row of the paper."""
    command: str
    """What runs it alone."""
    target: str
    """The last stage that it needs."""
    time: str
    expected: str
    """Scores to expect, or where they are."""


def read_catalogue(conf: Path = CONF) -> dict[str, Experiment]:
    """Every experiment by name, in the order of the names.

    Raises: UserError for a folder without experiments, and for a file whose comment lacks a field.
    """
    files = sorted(conf.glob("*.yaml"))
    if not files:
        raise UserError(f"{conf}: holds no experiments; run this in the root of a clone of the repository")
    return {path.stem: _read(path) for path in files}


def select(catalogue: Mapping[str, Experiment], globs: Sequence[str]) -> list[Experiment]:
    """Those whose name matches one of `globs` ("table1_*"); all without globs. Raises: UserError for an idle glob."""
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in catalogue):
            raise UserError(f"no experiment is named '{glob}'; known: {', '.join(catalogue)}")
    chosen = (name for name in catalogue if not globs or any(fnmatchcase(name, glob) for glob in globs))
    return [catalogue[name] for name in chosen]


def run_name(experiment: str, profile: str) -> str:
    """The DVC experiment's name: that of the experiment, with the profile where it is not the default one."""
    return experiment if profile == DEFAULT_PROFILE else f"{experiment}-{profile}"


def _read(path: Path) -> Experiment:
    fields = dict(_FIELD.findall(path.read_text(encoding="utf-8")))
    for name in _FIELDS:
        if name not in fields:
            raise UserError(
                f"{path}: its opening comment lacks '# {name}: …'; add it, as the other experiments have it"
            )
    return Experiment(name=path.stem, **{name: fields[name] for name in _FIELDS})
