"""The oracle of paper section 3.3: for each category that a prompt names, the mask that a detector finds of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diffground.data.labelled import LabelledSample, oracle_sample
from diffground.data.shard_map import ShardJob, map_shards
from diffground.data.shards import Sample, count_samples, list_shards, read_samples, read_shard
from diffground.detection.detector import Detector, Instances
from diffground.errors import UserError
from diffground.runtime.batches import in_batches
from diffground.runtime.fingerprint import checkpoint_fingerprint
from diffground.runtime.workers import Workers
from diffground.vocabulary import closest


@dataclass(frozen=True)
class OracleMask:
    """`mask` bool (H, W), the union of the instances used; `score` of the best, 0..1; `num_instances` of them."""

    mask: np.ndarray
    score: float
    num_instances: int


def oracle_masks(
    instances: Instances, categories: Sequence[str], *, detector_names: Mapping[str, str | None], score_threshold: float
) -> dict[str, OracleMask]:
    """Category -> union of its instances that score at least `score_threshold`. What has no pixel was not found and is
    left out. `detector_names` maps a category to the detector's label for it."""
    found = {}
    for category in categories:
        used = [
            i
            for i, label in enumerate(instances.labels)
            if label == detector_names[category] and instances.scores[i] >= score_threshold
        ]
        if used and instances.masks[used].any():
            found[category] = OracleMask(
                mask=np.any(instances.masks[used], axis=0),
                score=float(instances.scores[used].max()),
                num_instances=len(used),
            )
    return found


def require_labels(detector: Detector, categories: Sequence[str], *, detector_names: Mapping[str, str | None]) -> None:
    """Raises: UserError when the detector has no label for one of `categories`; it names the closest label."""
    missing = unlabelled(detector, categories, detector_names=detector_names)
    if missing:
        near = closest(detector_names[missing[0]] or missing[0], detector.labels)
        raise UserError(
            f"detector.checkpoint: the detector has no label for {', '.join(missing)}; "
            f"closest to '{missing[0]}': {near}; it knows {', '.join(detector.labels)}; write its name as `detector` "
            f"in the vocabulary, make the category unseen, or take another checkpoint"
        )


def unlabelled(detector: Detector, categories: Sequence[str], *, detector_names: Mapping[str, str | None]) -> list[str]:
    """Those of `categories` that the detector has no label for: it finds none of them."""
    return [category for category in categories if detector_names[category] not in detector.labels]


@dataclass
class FoundCounts:
    """How often the detector found what prompts name."""

    num_samples: dict[tuple[int, int], int] = field(default_factory=dict)
    """By number of (named, found) categories."""
    per_category: dict[str, dict[str, int]] = field(default_factory=dict)
    """Category -> 'found' and 'not_found', the number of samples that name it and in which it was, or was not."""

    def add(self, *, named: Sequence[str], found: Collection[str]) -> None:
        key = (len(named), len(found))
        self.num_samples[key] = self.num_samples.get(key, 0) + 1
        for category in named:
            counts = self.per_category.setdefault(category, {"found": 0, "not_found": 0})
            counts["found" if category in found else "not_found"] += 1

    def all_found_frac(self, num_named: int) -> float | None:
        """Share of the samples with `num_named` categories in which all were found, 0..1; None without such samples."""
        total = sum(n for (named, _), n in self.num_samples.items() if named == num_named)
        return self.num_samples.get((num_named, num_named), 0) / total if total else None


def detect_shards(
    in_dir: Path,
    out_dir: Path,
    *,
    detector: Detector,
    detector_id: str,
    detector_names: Mapping[str, str | None],
    score_threshold: float,
    mask_threshold: float,
    batch_size: int,
    description: str,
    workers: Workers | None = None,
) -> int:
    """Look for each sample's named categories in its image; one shard of out_dir for each of in_dir. Returns the number
    of shards written now.

    A sample has a mask per category that was found, its score and number of instances (see data.labelled).
    `detector_id` and the thresholds say what the masks depend on; `mask_threshold` is the detector's.
    workers: None uses only this process. Raises: UserError for input shards that are missing or damaged.
    """
    shards = list_shards(in_dir)
    return map_shards(
        [ShardJob(name=path.stem, payload=path) for path in shards],
        out_dir=out_dir,
        # the batch size is left out: an image's instances do not depend on it
        fingerprint={
            "images": checkpoint_fingerprint(in_dir),
            "detector": detector_id,
            "detector_names": dict(detector_names),
            "score_threshold": score_threshold,
            "mask_threshold": mask_threshold,
        },
        process=_DetectShard(
            detector=detector,
            detector_names=detector_names,
            score_threshold=score_threshold,
            batch_size=batch_size,
        ),
        description=description,
        num_samples=sum(count_samples(path) for path in shards),
        workers=workers,
    )


@dataclass(frozen=True)
class _DetectShard:
    """A shard of images -> samples of their masks."""

    detector: Detector
    detector_names: Mapping[str, str | None]
    score_threshold: float
    batch_size: int

    def __call__(self, path: Path) -> Iterator[Sample]:
        samples = [LabelledSample(sample) for sample in read_shard(path)]
        batches = in_batches(
            samples,
            lambda batch: self.detector.detect(np.stack([sample.image() for sample in batch])),  # of (B, H, W, 3)
            batch_size=self.batch_size,
            setting="detector.batch_size",
            lower="generator.image_size or runtime.num_workers",
        )
        for batch, found_in_batch in batches:
            for sample, instances in zip(batch, found_in_batch, strict=True):
                found = oracle_masks(
                    instances,
                    sample.categories,
                    detector_names=self.detector_names,
                    score_threshold=self.score_threshold,
                )
                yield oracle_sample(
                    sample.key,
                    categories=sample.categories,
                    masks={category: oracle.mask for category, oracle in found.items()},
                    scores={category: round(oracle.score, 4) for category, oracle in found.items()},
                    num_instances={category: oracle.num_instances for category, oracle in found.items()},
                )


def count_found(out_dir: Path) -> FoundCounts:
    """Counts over all shards that detect_shards wrote. Raises: UserError for shards that are missing or damaged."""
    counts = FoundCounts()
    for sample in read_samples(out_dir):
        labelled = LabelledSample(sample, oracle=sample)
        counts.add(named=labelled.categories, found=labelled.found)
    return counts
