"""Entries of dvc.lock files that are valid for given parameters, and how to combine two files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffground.atomic import atomic_file

Stages = dict[str, Any]
"""The `stages` of a dvc.lock: name -> cmd, deps, params, outs."""


def read_stages(text: str) -> Stages:
    """The stages of a dvc.lock; none of an empty file."""
    return dict(read_yaml(text).get("stages") or {})


def read_yaml(text: str) -> Any:
    """YAML as DVC reads it: 1e-05 is a number. An empty mapping of no text."""
    from dvc.utils.serialize import parse_yaml

    return parse_yaml(text, "<text>")


def write_stages(path: Path, stages: Stages) -> None:
    """Write a dvc.lock, whole or not at all."""
    from dvc.utils.serialize import dump_yaml

    with atomic_file(path) as partial:
        dump_yaml(partial, {"schema": "2.0", "stages": stages})


def combine(candidates: Sequence[Stages], params: Mapping[str, Any]) -> tuple[Stages, set[str]]:
    """For each stage the first entry among the candidates that is valid for `params`, else the first entry.

    An entry is valid if its parameters are those of `params`, and its inputs from other stages are the outputs of valid
    entries chosen for these. Code is not compared; DVC does that.
    Returns: the entries, and the names of stages whose entry is valid.
    """
    names = list(dict.fromkeys(name for stages in candidates for name in stages))
    makers = {out["path"]: name for stages in candidates for name, entry in stages.items() for out in _outs(entry)}
    chosen: Stages = {}
    holding: set[str] = set()

    def choose(name: str) -> None:
        if name in chosen:
            return
        entries = [stages[name] for stages in candidates if name in stages]
        chosen[name] = entries[0]
        for entry in entries:
            sources = [(makers[dep["path"]], dep) for dep in entry.get("deps", []) if dep["path"] in makers]
            for maker, _ in sources:
                choose(maker)
            fresh = all(maker in holding and _wrote(chosen[maker], dep) for maker, dep in sources)
            if fresh and _same_params(entry, params):
                chosen[name] = entry
                holding.add(name)
                return

    for name in names:
        choose(name)
    return chosen, holding


def metrics_files(stages: Stages, names: Iterable[str], *, folder: str) -> dict[str, str]:
    """Stem -> path of the JSON files below `folder` that the stages `names` wrote."""
    paths = [out["path"] for name in names for out in _outs(stages[name])]
    return {
        path.rpartition("/")[2].removesuffix(".json"): path
        for path in sorted(paths)
        if path.startswith(f"{folder}/") and path.endswith(".json")
    }


def _outs(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(entry.get("outs", []))


def _wrote(entry: Mapping[str, Any], dep: Mapping[str, Any]) -> bool:
    return any(out["path"] == dep["path"] and out.get("md5") == dep.get("md5") for out in _outs(entry))


def _same_params(entry: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    recorded = (entry.get("params") or {}).get("params.yaml") or {}
    return all(_lookup(params, key) == value for key, value in recorded.items())


def _lookup(params: Mapping[str, Any], key: str) -> Any:
    value: Any = params
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value
