"""The sets of shards that the Studio shows: synthetic samples, and the test images of Protocol I with their oracle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path

from diffground.data.labelled import META, LabelledSample, decode_record
from diffground.data.review import with_masks_of_label
from diffground.data.shards import REMEDY, Member, Sample, list_members, list_shards, read_member
from diffground.errors import UserError


@dataclass(frozen=True)
class Place:
    """Where the members of a sample are: they are read when they are asked for."""

    key: str
    image_shard: str
    members: tuple[Member, ...]
    oracle: tuple[Member, ...] = ()
    """In the shard of the same name in the oracle's folder."""


@dataclass(frozen=True)
class Facts:
    """What a list of samples says of one."""

    prompt: str
    group: str
    quality: float
    """0..1. Of a test image: the lowest score of the detector among the named categories, 0 where one was not found."""
    areas: Mapping[str, float]
    """Named category -> its share of the image, 0 where it has no pixel."""


@dataclass(frozen=True)
class ShardSet:
    """Shards of one kind."""

    name: str
    title: str
    images: Path
    categories: tuple[str, ...]
    """Of the vocabulary, in label order."""
    oracle: Path | None = None
    """Shards of masks; None: the samples have label maps."""

    def shards(self) -> list[Path]:
        """All files, those of the images first. Raises: UserError where there are none."""
        return [*list_shards(self.images), *(list_shards(self.oracle) if self.oracle else [])]

    def places(self) -> Iterator[Place]:
        """Every sample, read only from the tars' headers. Raises: UserError as list_members does, and for an oracle of
        other samples."""
        for path in list_shards(self.images):
            images = groupby(list_members(path), key=lambda member: member.key)
            if self.oracle is None:
                yield from (Place(key, path.name, tuple(members)) for key, members in images)
                continue
            masks = groupby(list_members(self.oracle / path.name), key=lambda member: member.key)
            # groupby hands out a group only until the next one is asked for
            listed = ((key, tuple(members)) for key, members in images)
            listed_masks = ((key, tuple(members)) for key, members in masks)
            for image, mask in zip_longest(listed, listed_masks):
                if image is None or mask is None or image[0] != mask[0]:
                    raise UserError(f"{self.oracle / path.name}: its samples are not those of {path}; run `dvc repro`")
                yield Place(image[0], path.name, image[1], mask[1])

    def facts(self, place: Place) -> Facts:
        """Raises: UserError for a record that lacks what is listed."""
        record = self._record(self.images / place.image_shard, place.members)
        found = self._record(self.oracle / place.image_shard, place.oracle) if self.oracle else record
        where = f"{self.images / place.image_shard}: sample '{place.key}', member '{META}'"
        prompt, names, group = record.get("prompt"), record.get("categories"), record.get("group", "")
        if not isinstance(prompt, str) or not isinstance(group, str) or not _are_names(names):
            raise UserError(f"{where}: must have 'prompt' and 'categories'; {REMEDY}")
        assert isinstance(names, list)
        if self.oracle:
            scores = found.get("scores")
            quality = min((scores.get(name, 0.0) for name in names), default=0.0) if isinstance(scores, dict) else 0.0
        else:
            quality = record.get("quality", 0.0)
        if not isinstance(quality, int | float) or not 0 <= quality <= 1:
            raise UserError(f"{where}: 'quality' must be 0..1, got {quality!r}; {REMEDY}")
        return Facts(prompt, group, float(quality), self._areas(place, record, names))

    def read(self, place: Place) -> LabelledSample:
        """With its masks. Raises: UserError for a member that is gone or damaged."""
        path = self.images / place.image_shard
        sample = Sample(place.key, {member.name: read_member(path, member) for member in place.members}, path)
        if self.oracle is None:
            return with_masks_of_label(LabelledSample(sample), self.categories)
        path = self.oracle / place.image_shard
        found = Sample(place.key, {member.name: read_member(path, member) for member in place.oracle}, path)
        return LabelledSample(sample, found)

    def _record(self, path: Path, members: Sequence[Member]) -> dict[str, object]:
        for member in members:
            if member.name == META:
                return decode_record(read_member(path, member), place=f"{path}: sample '{member.key}'")
        raise UserError(f"{path}: sample '{members[0].key}' has no member '{META}'; {REMEDY}")

    def _areas(self, place: Place, record: Mapping[str, object], names: Sequence[str]) -> dict[str, float]:
        """From the record where stage synthesize wrote them there, else counted."""
        summary = record.get("masks")
        if isinstance(summary, dict) and all(isinstance(summary.get(name), dict) for name in names):
            return {name: float(summary[name].get("area_frac", 0.0)) for name in names}
        masks = self.read(place).masks()
        return {name: float(masks[name].mean()) if name in masks else 0.0 for name in names}


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
