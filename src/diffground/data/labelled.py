"""The record that shards hold: the members of a sample and the keys of its meta.json, written and read only here.

    image.png            uint8 RGB (H, W, 3)
    label.png            uint8 (H, W) with the VOC palette: 0 background, category i as i + 1, 255 ignored
    latent.npy           float16 (C, h, w), what enters the UNet at the tapped step
    mask.<category>.png  1 bit (H, W), one per category that was found
    ignored.png          1 bit (H, W), the pixels that nobody labelled; absent where all are labelled
    meta.json            prompt, categories, settings …, see image_sample and oracle_sample

A sample of images has image.png, meta.json and what its stage makes of label.png and latent.npy. A sample of the
oracle has masks, ignored.png and meta.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from diffground.data.shards import (
    REMEDY,
    Member,
    Sample,
    decode_array,
    decode_json,
    decode_label,
    decode_mask,
    decode_png,
    encode_array,
    encode_json,
    encode_label,
    encode_mask,
    encode_png,
    list_members,
    list_shards,
    read_member,
    read_shard,
)
from diffground.errors import UserError

CATEGORIES_FILE = "categories.json"
"""Next to shards of label maps: the names of their labels, a JSON list in label order from label 1."""
IMAGE, LABEL, _LATENT, _IGNORED, META = "image.png", "label.png", "latent.npy", "ignored.png", "meta.json"
_T = TypeVar("_T")


def image_sample(
    *,
    id: str,
    prompt: str,
    categories: Sequence[str],
    settings: Mapping[str, Any],
    image: np.ndarray,
    latent: np.ndarray | None = None,
    label: np.ndarray | None = None,
    group: str | None = None,
    seed: int | None = None,
    source: str | None = None,
    image_id: str | None = None,
    inversion_error: float | None = None,
    mask_summary: Mapping[str, Mapping[str, float]] | None = None,
    quality: float | None = None,
) -> Sample:
    """An image with the stage's results for it, to write. None leaves a member or key out.

    Args:
        id, prompt, categories, group, seed, source: as in PromptRecord; `id` is the sample's key.
        settings: what the sample depends on, as more keys of meta.json (see sampler_settings).
        image, latent, label: arrays as the members hold them.
        image_id: which real image it is.
        inversion_error: distance of its clean latent after inversion and sampling, over the latent's norm.
        mask_summary: category -> numbers about its mask.
        quality: how far its masks can be trusted, 0..1.
    """
    optional = {
        "group": group,
        "seed": seed,
        "source": source,
        "image_id": image_id,
        "inversion_error": inversion_error,
        "masks": mask_summary,
        "quality": quality,
    }
    meta = {
        "id": id,
        "prompt": prompt,
        "categories": list(categories),
        **{key: value for key, value in optional.items() if value is not None},
        **settings,
    }
    members = {IMAGE: encode_png(image), META: encode_json(meta)}
    if latent is not None:
        members[_LATENT] = encode_array(latent)
    if label is not None:
        members[LABEL] = encode_label(label)
    return Sample(key=id, members=members)


def oracle_sample(
    key: str,
    *,
    categories: Sequence[str],
    masks: Mapping[str, np.ndarray],
    ignored: np.ndarray | None = None,
    scores: Mapping[str, float] | None = None,
    num_instances: Mapping[str, int] | None = None,
) -> Sample:
    """The oracle's result for image `key`, to write. None leaves a member or key out.

    Args:
        categories: those that the prompt names.
        masks: category -> bool (H, W), for those that were found.
        ignored: bool (H, W), the pixels that nobody labelled.
        scores, num_instances: category -> the detector's best score, 0..1, and the number of instances used.
    """
    optional = {"scores": scores, "num_instances": num_instances}
    meta = {
        "id": key,
        "categories": list(categories),
        "found": [category for category in categories if category in masks],
        **{name: value for name, value in optional.items() if value is not None},
    }
    members = {_mask_name(category): encode_mask(mask) for category, mask in masks.items()}
    if ignored is not None:
        members[_IGNORED] = encode_mask(ignored)
    return Sample(key=key, members={**members, META: encode_json(meta)})


@dataclass(frozen=True)
class LabelledSample:
    """A sample read back: one image, and the oracle's masks of it where they were joined.

    Members stay encoded until they are asked for. Raises on access: UserError, which names file, sample and member, for
    one that the sample lacks or that cannot be decoded.
    """

    sample: Sample
    """Of a shard of images; of the oracle's shard where only that one is read."""
    oracle: Sample | None = None
    """Of the oracle's shard."""

    @property
    def key(self) -> str:
        return self.sample.key

    @property
    def prompt(self) -> str:
        return self._value("prompt", str)

    @property
    def categories(self) -> tuple[str, ...]:
        """In the order in which the prompt names them."""
        return tuple(self._value("categories", list))

    @property
    def group(self) -> str:
        """Of Protocol I."""
        return self._value("group", str)

    @property
    def seed(self) -> int:
        """Of the sample's noise."""
        return self._value("seed", int)

    @property
    def timestep(self) -> int:
        """At which `latent` enters the UNet."""
        return self._value("timestep", int)

    @property
    def image_id(self) -> str:
        """Which real image it is."""
        return self._value("image_id", str)

    @property
    def inversion_error(self) -> float:
        return self._value("inversion_error", float)

    @property
    def quality(self) -> float:
        """How far its masks can be trusted, 0..1."""
        return self._value("quality", float)

    @property
    def latent(self) -> np.ndarray:
        """float16 (C, h, w)."""
        content = _member(self.sample, _LATENT)
        try:
            return decode_array(content)
        except ValueError:
            raise UserError(f"{_place(self.sample, _LATENT)} is no array of numbers; {REMEDY}") from None

    def image(self) -> np.ndarray:
        """uint8 (H, W, 3)."""
        return decode_png(_member(self.sample, IMAGE), place=_place(self.sample, IMAGE))

    @property
    def has_label(self) -> bool:
        return LABEL in self.sample.members

    def label(self) -> np.ndarray:
        """uint8 (H, W), 0 background, category i as i + 1, 255 ignored."""
        return decode_label(_member(self.sample, LABEL), place=_place(self.sample, LABEL))

    @property
    def found(self) -> tuple[str, ...]:
        """The named categories of which the oracle has a mask, in the order of the shard's members."""
        named = {_mask_name(category): category for category in self.categories}
        return tuple(named[name] for name in (self.oracle.members if self.oracle else ()) if name in named)

    def masks(self) -> dict[str, np.ndarray]:
        """Category -> bool (H, W), for those named categories that the oracle found."""
        return {category: self._mask(_mask_name(category)) for category in self.found}

    def ignored(self) -> np.ndarray | None:
        """Pixels that nobody labelled, bool (H, W), in no mask; None where all are labelled, as by a detector."""
        return self._mask(_IGNORED) if self.oracle and _IGNORED in self.oracle.members else None

    def without_image(self) -> LabelledSample:
        """The same without image and label map, to hold many in memory."""
        members = {name: content for name, content in self.sample.members.items() if name not in (IMAGE, LABEL)}
        return replace(self, sample=replace(self.sample, members=members))

    @cached_property
    def _meta(self) -> dict[str, Any]:
        return decode_record(_member(self.sample, META), place=self.sample.place)

    def _value(self, key: str, kind: type[_T]) -> _T:
        value = self._meta.get(key)
        if not isinstance(value, kind):
            raise UserError(f"{_place(self.sample, META)}: '{key}' must be {kind.__name__}, got {value!r}; {REMEDY}")
        return value

    def _mask(self, name: str) -> np.ndarray:
        assert self.oracle is not None
        return decode_mask(_member(self.oracle, name), place=_place(self.oracle, name))


def read_labelled_samples(*, generated: Path, oracle: Path) -> Iterator[LabelledSample]:
    """Join shards of images with those of their masks (`generate` and `detect`, or `invert_real`), sample by sample.

    Raises: UserError when a folder is missing or the two do not hold the same samples.
    """
    generated_shards, oracle_shards = list_shards(generated), list_shards(oracle)
    if [p.name for p in generated_shards] != [p.name for p in oracle_shards]:
        raise UserError(
            f"{oracle} must hold one shard for each of the {len(generated_shards)} of {generated}, "
            f"got {len(oracle_shards)}; run `dvc repro`"
        )
    for generated_path, oracle_path in zip(generated_shards, oracle_shards, strict=True):
        images, masks = list(read_shard(generated_path)), list(read_shard(oracle_path))
        if [s.key for s in images] != [s.key for s in masks]:
            raise UserError(f"{oracle_path}: its samples are not those of {generated_path}; run `dvc repro`")
        for image, found in zip(images, masks, strict=True):
            yield LabelledSample(image, found)


@dataclass(frozen=True, slots=True)
class StoredLabelMap:
    """The positions of an image, its label map and its record in a shard."""

    path: Path
    image: Member
    label: Member
    meta: Member | None

    def quality(self) -> float:
        """See LabelledSample.quality. Raises: UserError where the sample has none."""
        members = {} if self.meta is None else {META: read_member(self.path, self.meta)}
        return LabelledSample(Sample(self.image.key, members, self.path)).quality

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H, W, 3), label uint8 (H, W). Raises: UserError as LabelledSample and read_member do."""
        members = {IMAGE: read_member(self.path, self.image), LABEL: read_member(self.path, self.label)}
        sample = LabelledSample(Sample(self.image.key, members, self.path))
        return sample.image(), sample.label()


def list_label_maps(path: Path) -> Iterator[StoredLabelMap]:
    """Every sample of a shard of images with label maps, read only from the tar's headers.

    Raises: UserError as list_members does, and for a sample without image or label.
    """
    for key, group in groupby(list_members(path), key=lambda member: member.key):
        members = {member.name: member for member in group}
        for name in (IMAGE, LABEL):
            if name not in members:
                raise _missing(Sample(key, {}, path), name)
        yield StoredLabelMap(path, members[IMAGE], members[LABEL], members.get(META))


def decode_record(content: bytes, *, place: str) -> dict[str, Any]:
    """Member META of a sample. Raises: UserError, which names `place`, where it is no JSON object."""
    try:
        record = decode_json(content)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{place}, member '{META}' is no JSON object; {REMEDY}")
    return record


def _mask_name(category: str) -> str:
    return f"mask.{category}.png"


def _member(sample: Sample, name: str) -> bytes:
    if name not in sample.members:
        raise _missing(sample, name)
    return sample.members[name]


def _missing(sample: Sample, name: str) -> UserError:
    return UserError(f"{sample.place} has no member '{name}'; {REMEDY}")


def _place(sample: Sample, name: str) -> str:
    return f"{sample.place}, member '{name}'"
