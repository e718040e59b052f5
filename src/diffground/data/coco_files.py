"""Annotation files in COCO's format: reading them, their categories and images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffground.data.palette import IGNORE
from diffground.errors import UserError


def read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """An annotation file. Raises: UserError when it is missing, no JSON, or lacks one of `keys`."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `diffground fetch coco2017` or unpack COCO's archives") from None
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); fetch the file again") from None
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path}: is no COCO annotation file, has no '{missing[0]}'; fetch the file again")
    return content


def labels_by_id(path: Path, categories: Sequence[Mapping[str, Any]], labels: Mapping[str, int]) -> dict[int, int]:
    """The file's category id -> label, 0 for categories without one. Raises: UserError where it lacks `labels`."""
    missing = sorted(set(labels) - {category["name"] for category in categories})
    if missing:
        raise UserError(
            f"{path}: lacks {len(missing)} of {len(labels)} categories, the first '{missing[0]}'; take COCO's own file"
        )
    return {category["id"]: labels.get(category["name"], 0) for category in categories}


def object_number(path: Path, image: Mapping[str, Any], number: int) -> int:
    """`number`. Raises: UserError for one that an object map cannot hold."""
    if number >= IGNORE:
        raise UserError(f"{path}: image {image['id']} has more than {IGNORE - 1} objects; leave it out of the file")
    return number


def choose(images: Sequence[Mapping[str, Any]], num_images: int | None, seed: int) -> list[Mapping[str, Any]]:
    """A random subset, in the order of `images`; None: all. Raises: UserError for more than there are."""
    if num_images is None:
        return list(images)
    if not 1 <= num_images <= len(images):
        raise UserError(
            f"COCO: this split has {len(images)} images, {num_images} are asked for; lower data.num_train or num_val"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    return [images[i] for i in sorted(order[:num_images])]


def check_files(folder: Path, names: Sequence[str], *, what: str, remedy: str) -> None:
    """Raises: UserError for names that are no files of `folder`."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(f"{folder / missing[0]}: missing, and {len(missing) - 1} more of {len(names)} {what}; {remedy}")
