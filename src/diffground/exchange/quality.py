"""The quality of synthetic samples per category, and how many more prompts replace those that are left out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from diffground.data.labelled import META
from diffground.data.shards import Sample, list_members, list_shards, read_member
from diffground.errors import UserError
from diffground.exchange.samples import read_facts


@dataclass(frozen=True)
class QualityCount:
    """Of the samples whose prompt names one category, or of all."""

    num_images: int
    mean_quality: float
    """0..1."""
    num_below: int
    """Samples whose quality is lower than the limit."""

    @property
    def num_to_fill(self) -> int | None:
        """Further prompts after which, at the same share of samples kept, `num_images` are kept; None if none is."""
        num_kept = self.num_images - self.num_below
        return -(-self.num_below * self.num_images // num_kept) if num_kept else None


def count_quality(shards: Path, *, min_quality: float) -> tuple[QualityCount, dict[str, QualityCount]]:
    """Read the record of every sample in a folder of shards. Memory grows with the number of categories only.

    Returns: the count over all samples, and that of each category, in alphabetical order.
    Raises: UserError for a limit outside 0..1, a folder without shards, and a sample without a quality.
    """
    if not 0 <= min_quality <= 1:
        raise UserError(f"--min-quality must be in 0..1, got {min_quality:g}")
    sums: dict[str | None, list[float]] = defaultdict(lambda: [0, 0.0, 0])  # images, sum of qualities, below
    for path in list_shards(shards):
        for member in list_members(path):
            if member.name != META:
                continue
            place = Sample(member.key, {}, path).place
            facts = read_facts(read_member(path, member), place=place)
            if facts.quality is None:
                raise UserError(f"{place} has no quality; only samples of stage synthesize have one")
            for name in (None, *facts.categories):
                count = sums[name]
                count[0] += 1
                count[1] += facts.quality
                count[2] += facts.quality < min_quality
    counts = {name: QualityCount(int(num), total / num, int(below)) for name, (num, total, below) in sums.items()}
    if None not in counts:
        raise UserError(f"{shards}: holds no sample; run `dvc repro synthesize`")
    return counts.pop(None), {name: counts[name] for name in sorted(name for name in counts if name is not None)}
