"""One sample of stage synthesize as an export reads it, checked, and the names of its labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffground.data.labelled import CATEGORIES_FILE, IMAGE, LABEL, META, LabelledSample, decode_record
from diffground.data.palette import IGNORE
from diffground.data.shards import REMEDY, Sample
from diffground.errors import UserError
from diffground.exchange.objects import Object, find_objects


@dataclass(frozen=True)
class Categories:
    """The names of labels: category i of `names` has label i + 1, 0 is the background."""

    names: tuple[str, ...]
    used: tuple[str, ...]
    """Those that may occur, in label order; only they are listed where a format leaves a choice."""

    @property
    def labels(self) -> dict[int, str]:
        """Label -> name of every used category."""
        return {i + 1: name for i, name in enumerate(self.names) if name in self.used}


def read_categories(shards: Path) -> Categories | None:
    """SHARDS/categories.json, a list of names in label order; None where there is no such file.

    Raises: UserError for a file that holds anything else.
    """
    path = shards / CATEGORIES_FILE
    if not path.is_file():
        return None
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        names = None
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) and name for name in names)
        or not 0 < len(set(names)) == len(names) < IGNORE
    ):
        raise UserError(f"{path}: must be a JSON list of 1 to {IGNORE - 1} different names in label order")
    return Categories(names=tuple(names), used=tuple(names))


@dataclass(frozen=True)
class Facts:
    """meta.json of a sample."""

    prompt: str
    categories: tuple[str, ...]
    seed: int | None
    quality: float | None
    """0..1."""
    settings: Mapping[str, Any]
    """What samples have in common: generator, sampler, grounding module …"""


_OF_ONE_SAMPLE = {"id", "prompt", "categories", "group", "seed", "source", "image_id", "inversion_error", "masks"}
_OF_ONE_SAMPLE |= {"quality"}


def read_facts(content: bytes, *, place: str) -> Facts:
    """meta.json -> facts. Raises: UserError, which names `place`, for a key that is missing or has another type."""
    meta = decode_record(content, place=place)
    names, seed, quality = meta.get("categories"), meta.get("seed"), meta.get("quality")
    for key, right in (
        ("prompt", isinstance(meta.get("prompt"), str)),
        ("categories", isinstance(names, list) and all(isinstance(name, str) for name in names)),
        ("seed", seed is None or (isinstance(seed, int) and not isinstance(seed, bool) and abs(seed) < 2**63)),
        ("quality", quality is None or (_is_number(quality) and 0 <= quality <= 1)),
    ):
        if not right:
            raise UserError(f"{place}, member '{META}': '{key}' cannot be {meta.get(key)!r}; {REMEDY}")
    return Facts(
        prompt=meta["prompt"],
        categories=tuple(meta["categories"]),
        seed=seed,
        quality=None if quality is None else float(quality),
        settings={key: value for key, value in meta.items() if key not in _OF_ONE_SAMPLE},
    )


@dataclass(frozen=True)
class ExportSample:
    """One kept sample. Image and label map are decoded once, when they are first asked for."""

    key: str
    number: int
    """Its place among all samples of the shards, from 1; unique in an export."""
    split: str
    facts: Facts
    sample: Sample
    categories: Categories

    @cached_property
    def image(self) -> np.ndarray:
        """uint8 (H, W, 3). Raises: UserError for one that cannot be decoded."""
        image = LabelledSample(self.sample).image()
        if image.ndim == 3 and image.shape[2] == 3:
            return image
        return np.array(Image.fromarray(image).convert("RGB"))

    @cached_property
    def image_png(self) -> bytes:
        """The image as it is in the shard, without loss."""
        _ = self.image  # one that cannot be decoded is not copied
        return self.sample.members[IMAGE]

    @cached_property
    def label(self) -> np.ndarray:
        """uint8 (H, W), category i as i + 1, 255 ignored.

        Raises: UserError for a map that cannot be decoded, has another size than its image, or a label without a name.
        """
        label = LabelledSample(self.sample).label()
        place = f"{self.sample.place}, member '{LABEL}'"
        if label.shape != self.image.shape[:2]:
            raise UserError(f"{place} has shape {label.shape}, its image {self.image.shape[:2]}; {REMEDY}")
        known = {0, IGNORE, *self.categories.labels}
        for value in np.unique(label).tolist():
            if value not in known:
                raise UserError(
                    f"{place} has label {value}, but the vocabulary uses the labels "
                    f"{_ranges(sorted(self.categories.labels))}; set the vocabulary of params.yaml to that of the "
                    f"shards, or write all names to {CATEGORIES_FILE} next to them"
                )
        return label

    @cached_property
    def objects(self) -> tuple[Object, ...]:
        """The connected regions of every category, by label, then from top to bottom."""
        return find_objects(self.label)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.label.shape[0], self.label.shape[1]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ranges(numbers: list[int]) -> str:
    """[1, 2, 3, 5] -> "1..3, 5"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}..{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
