"""Where a segmenter's training images come from. A source is a sequence of (image uint8 (H, W, 3), label uint8 (H, W));
labels: 0 background, 1..K categories, 255 ignored."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from diffground.data.labelled import LabelledSample, StoredLabelMap, list_label_maps
from diffground.data.palette import IGNORE
from diffground.data.review import REJECTED, Review, with_masks_of_label
from diffground.data.shards import Sample, list_shards, read_member
from diffground.errors import UserError


class SegmentationSource(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]: ...


HELD_OUT_EVERY = 10
"""Where there are no real validation images, every tenth synthetic one is held out to score segmenters on."""


class ShardSource:
    """Shards of stage `synthesize` or `text2mask`. They stay on disk; only the position of each member is in memory.

    part: all samples, every tenth ('held_out'), or the others ('training').
    min_quality: samples below it are left out, 0..1; above 0, each sample's record is read.
    review, categories: a person's verdicts on these samples, and the names of the labels in label order; rejected
        samples are left out, after the parts were formed. Only rejected samples are read here.
    Raises: UserError when the folder has no shards, one of them is damaged or holds other samples, or none is left; for
        a verdict on a sample that is not there, and a rejection of one that has changed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        part: Literal["all", "training", "held_out"] = "all",
        min_quality: float = 0.0,
        review: Review | None = None,
        categories: Sequence[str] = (),
    ) -> None:
        stored = [sample for path in list_shards(folder) for sample in list_label_maps(path)]
        rejected = _rejected(stored, review, categories) if review and review.entries else set()
        held_out = stored[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
        if part == "held_out" and not held_out:
            raise UserError(
                f"{folder}: {len(stored)} images are too few to hold out every {HELD_OUT_EVERY}th; raise "
                f"prompts.synthesis_per_category"
            )
        if part == "training":
            stored = [sample for i, sample in enumerate(stored, start=1) if i % HELD_OUT_EVERY]
        chosen = held_out if part == "held_out" else stored
        kept = [sample for sample in chosen if sample.image.key not in rejected]
        self.num_rejected = len(chosen) - len(kept)
        """Samples of this part that the review rejects."""
        if not kept:
            raise UserError(f"{review.path if review else folder}: rejects every sample of {folder}; accept some")
        self._samples = [sample for sample in kept if not min_quality or sample.quality() >= min_quality]
        self.num_low_quality = len(kept) - len(self._samples)
        """Further samples, below `min_quality`."""
        if not self._samples:
            raise UserError(f"{folder}: no sample has a quality of {min_quality:g}; lower segmenter.min_quality")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self._samples[i].read()


def _rejected(stored: Iterable[StoredLabelMap], review: Review, categories: Sequence[str]) -> set[str]:
    """Keys of the samples that `review` rejects. Raises: UserError as ShardSource says."""
    by_key = {sample.image.key: sample for sample in stored}
    review.require_known(by_key)
    rejected = {key for key, entry in review.entries.items() if entry.verdict == REJECTED}
    for key in rejected:
        place = by_key[key]
        present = [member for member in (place.image, place.label, place.meta) if member is not None]
        sample = Sample(key, {member.name: read_member(place.path, member) for member in present}, place.path)
        review.verdict(with_masks_of_label(LabelledSample(sample), categories))  # raises if the sample has changed
    return rejected


class Joined:
    """The images of several sources, one after another."""

    def __init__(self, *sources: SegmentationSource) -> None:
        self._sources = sources

    def __len__(self) -> int:
        return sum(map(len, self._sources))

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        for source in self._sources:
            if i < len(source):
                return source[i]
            i -= len(source)
        raise IndexError(i)


class WithoutLabels:
    """Another source with the pixels of some labels set to 255, as if nobody had labelled these categories."""

    def __init__(self, source: SegmentationSource, *, hidden: Collection[int]) -> None:
        self._source = source
        self._hidden = sorted(hidden)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = self._source[i]
        return image, np.where(np.isin(label, self._hidden), np.uint8(IGNORE), label)
