"""The data that a stage reads, as entries of its run: the deps in dvc.yaml below data/, with digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from diffground.reproduction import paths
from diffground.reproduction.config import Params

_DATA = "data/"
_LISTS = {"train": "train_list", "val": "val_list"}
_SETS = ("train", "val", "test")


def datasets_of(stage: str, params: Params) -> list[dict[str, Any]]:
    """Fields of MLflow's Dataset and the context of each; none without a dvc.yaml.

    The digest is that of the shards' fingerprint, else DVC's hash. Data without either is left out.
    """
    pipeline = _read(Path("dvc.yaml")).get("stages", {}).get(stage, {})
    locked = {
        out["path"]: str(out.get("md5", "")).removesuffix(".dir")
        for entry in _read(Path("dvc.lock")).get("stages", {}).values()
        for out in entry.get("outs", [])
    }
    found = []
    for source in pipeline.get("deps", []):
        path = Path(source)
        if not source.startswith(_DATA) or not path.exists():
            continue
        fingerprint = path / "fingerprint.json"
        if fingerprint.is_file():
            digest = hashlib.sha256(fingerprint.read_bytes()).hexdigest()[:32]
        else:
            digest = locked.get(source, "")
        for name, context, profile in _parts(path, pipeline.get("params", []), params) if digest else ():
            dataset = {
                "name": name,
                "digest": digest,
                "source_type": "local",
                "source": json.dumps({"uri": source}),
                "profile": json.dumps(profile),
            }
            found.append({"dataset": dataset, "context": context})
    return found


def _parts(path: Path, named: list[str], params: Params) -> Iterator[tuple[str, str, dict[str, int]]]:
    """Name, context, size: per list of real images that the stage names; one part for other data."""
    name = path.as_posix().removeprefix(_DATA)
    if path.name != paths.REAL.name:
        context = next((part for part in name.replace(".", "/").split("/") if part in _SETS), name.split("/")[0])
        files = path.rglob("*") if path.is_dir() else [path]
        yield name, context, {"num_files": sum(file.is_file() and file.suffix != ".json" for file in files)}
        return
    for context, key in _LISTS.items():
        if f"data.{key}" in named or "data" in named:
            image_list = getattr(params.data, key)
            file = path / "ImageSets" / "Segmentation" / f"{image_list}.txt"
            lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
            num = sum(bool(line) for line in lines)  # an id may have spaces
            yield f"{name}/{image_list}", context, {"num_images": num}


def _read(path: Path) -> Mapping[str, Any]:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}
