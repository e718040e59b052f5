"""Samples joined with the oracle's masks: what grounding is trained on and judged by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffground.data.shards import Sample, decode_array, decode_json, decode_mask, decode_png, list_shards, read_shard
from diffground.errors import UserError

IGNORED_MEMBER = "ignored.png"
"""Of an oracle's sample: 1-bit PNG of the pixels that nobody labelled; not there where all are."""
_MASK_PREFIX = "mask."


@dataclass(frozen=True)
class LabelledSample:
    """One image and the masks that the oracle gives of it. They stay encoded until asked for."""

    key: str
    prompt: str
    categories: tuple[str, ...]
    group: str
    seed: int
    timestep: int
    """Timestep at which `latent` enters the UNet."""
    latent: np.ndarray
    """float16 (C, h, w)."""
    image_png: bytes
    mask_pngs: dict[str, bytes]
    ignored_png: bytes | None = None
    image_place: str = "a sample"
    """For messages: the shard and the key of the image."""
    masks_place: str = "a sample"

    def image(self) -> np.ndarray:
        """uint8 (H, W, 3)."""
        return decode_png(self.image_png, place=self.image_place)

    def masks(self) -> dict[str, np.ndarray]:
        """Category -> bool (H, W), for those named categories that the detector found."""
        return {category: decode_mask(content, place=self.masks_place) for category, content in self.mask_pngs.items()}

    def ignored(self) -> np.ndarray | None:
        """Pixels that nobody labelled, bool (H, W), in no mask; None where all are labelled, as by a detector."""
        return None if self.ignored_png is None else decode_mask(self.ignored_png, place=self.masks_place)


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
            yield _join(image, found)


def _join(image: Sample, found: Sample) -> LabelledSample:
    meta = decode_json(image.members["meta.json"])
    masks = {
        name.removeprefix(_MASK_PREFIX).removesuffix(".png"): content
        for name, content in found.members.items()
        if name.startswith(_MASK_PREFIX)
    }
    return LabelledSample(
        key=image.key,
        prompt=meta["prompt"],
        categories=tuple(meta["categories"]),
        group=meta["group"],
        seed=meta["seed"],
        timestep=meta["timestep"],
        latent=decode_array(image.members["latent.npy"]),
        image_png=image.members["image.png"],
        mask_pngs={category: content for category, content in masks.items() if category in meta["categories"]},
        ignored_png=found.members.get(IGNORED_MEMBER),
        image_place=image.place,
        masks_place=found.place,
    )
