"""The data that a stage reads, as entries of its run: what dvc.yaml names below data/, with digests."""

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
_LISTS = ("data.train_list", "data.val_list")
_SETS = ("train", "val", "test")


def datasets_of(stage: str, params: Params, *, root: Path = Path()) -> list[dict[str, str]]:
    """Name, source, digest, context and profile (JSON) of each; none without a dvc.yaml.

    The digest is that of the shards' fingerprint, else DVC's hash of what is there, else one of file names and sizes.
    """
    pipeline = _read(root / "dvc.yaml").get("stages", {}).get(stage, {})
    locked = {
        out["path"]: str(out.get("md5", ""))
        for entry in _read(root / "dvc.lock").get("stages", {}).values()
        for out in entry.get("outs", [])
    }
    found = []
    for source in pipeline.get("deps", []):
        path = root / source
        if not source.startswith(_DATA) or not path.exists():
            continue
        digest = _digest(path, locked.get(source, ""))
        for name, context, num in _parts(path, source.removeprefix(_DATA), pipeline.get("params", []), params):
            profile = json.dumps({"num_files" if path.name == name.split("/")[-1] else "num_images": num})
            found.append(
                {
                    "name": name,
                    "source": json.dumps({"uri": source}),
                    "digest": digest,
                    "context": context,
                    "profile": profile,
                }
            )
    return found


def _parts(path: Path, name: str, named: list[str], params: Params) -> Iterator[tuple[str, str, int]]:
    """Name, context, size: one for each list of real images that the stage names, else only one."""
    if path.name != paths.REAL.name:
        context = next((part for part in name.replace(".", "/").split("/") if part in _SETS), name.split("/")[0])
        yield name, context, sum(1 for file in _files(path) if file.suffix != ".json")
        return
    for key in _LISTS:
        if key in named or "data" in named:
            image_list = getattr(params.data, key.removeprefix("data."))
            file = path / "ImageSets" / "Segmentation" / f"{image_list}.txt"
            num = len(file.read_text(encoding="utf-8").split()) if file.is_file() else 0
            yield f"{name}/{image_list}", key.removeprefix("data.").removesuffix("_list"), num


def _digest(path: Path, md5: str) -> str:
    fingerprint = path / "fingerprint.json"
    if fingerprint.is_file():
        return hashlib.sha256(fingerprint.read_bytes()).hexdigest()[:32]
    if md5:
        return md5.removesuffix(".dir")
    listing = "\n".join(f"{file.relative_to(path)} {file.stat().st_size}" for file in _files(path))
    return hashlib.sha256(listing.encode()).hexdigest()[:32]


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _read(path: Path) -> Mapping[str, Any]:
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}
