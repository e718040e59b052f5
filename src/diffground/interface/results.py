"""Masks as files: an index mask, an overlay, a record in JSON, and whether a record is of the present settings."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from diffground.atomic import atomic_file
from diffground.data.shards import encode_label
from diffground.entry_point import is_full_disk
from diffground.errors import UserError

MAX_WORDS = 254
"""Of one index mask: 0 is the background, 255 means "ignored" wherever the palette is used."""


def check_out_folder(folder: Path, *, option: str = "-o") -> None:
    """Make `folder` and write into it. Raises: UserError where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".partial"):
            pass
    except OSError as error:
        raise _unwritable(folder, error, option) from None


def write_results(contents: Mapping[Path, bytes], *, option: str = "-o") -> None:
    """Write each file atomically, in this order. Raises: UserError for a file that cannot be written, OSError for a
    full disk, which the entry point reports."""
    for path, content in contents.items():
        try:
            with atomic_file(path) as partial:
                partial.write_bytes(content)
        except OSError as error:
            raise _unwritable(path, error, option) from None


def _unwritable(path: Path, error: OSError, option: str) -> Exception:
    if is_full_disk(error):
        return error
    return UserError(f"{path}: cannot be written ({error.strerror or error}); give another place with {option}")


def read_record(path: Path) -> dict[str, Any]:
    """The content of a record; empty where there is none, or a file of another kind."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def same_settings(record: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a record was written with `settings`; tuples equal lists, as JSON has no tuples."""
    return record.get("settings") == json.loads(json.dumps(settings))


def encode_record(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2) + "\n").encode()


def encode_index_mask(masks: np.ndarray) -> bytes:
    """Disjoint bool (Q, H, W) -> PNG with the VOC palette: 0 background, i + 1 where mask i is."""
    label = np.zeros(masks.shape[1:], dtype=np.uint8)
    for i, mask in enumerate(masks):
        label[mask] = i + 1
    return encode_label(label)


def describe_words(words: Sequence[str], masks: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    """One object per word, named as in COCO's results where COCO has a name.

    Args: masks bool (Q, H, W); scores float (Q, H, W).
    Returns: word, label (its value in the index mask), bbox (x, y, width, height in px), area (px), area_frac (share of
        the image), score (highest in the image), segmentation (COCO's RLE; pycocotools.mask.decode reads it).
    """
    from diffground.exchange.objects import mask_box, run_lengths

    return [
        {
            "word": word,
            "label": label,
            "bbox": mask_box(mask),
            "area": int(mask.sum()),
            "area_frac": round(float(mask.mean()), 6),
            "score": round(float(of_word.max()), 6),
            "segmentation": run_lengths(mask),
        }
        for label, (word, mask, of_word) in enumerate(zip(words, masks, scores, strict=True), start=1)
    ]


def versions() -> dict[str, str]:
    """Package -> version, of those that decide a result; without importing them."""
    found = {}
    for name in ("torch", "diffusers", "transformers", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
