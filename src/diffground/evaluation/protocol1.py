"""Protocol I (paper section 4.2): category-wise mIoU of masks against the oracle's, in five groups of prompts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from diffground.data.labelled import LabelledSample
from diffground.data.review import ACCEPTED, REJECTED, Review
from diffground.evaluation.bootstrap import miou_interval
from diffground.evaluation.boundary import BoundaryCounts
from diffground.evaluation.confusion import MaskCounts
from diffground.evaluation.miou import IouTable, harmonic_mean, iou_of_masks, mask_iou, percent
from diffground.evaluation.nmi import NmiScores
from diffground.runtime.progress import Progress
from diffground.runtime.workers import Advance, Workers

logger = logging.getLogger(__name__)

MIN_AREA_FRAC = 0.01
"""A named object smaller than this share of the image is not judged."""
MAX_AREA_FRAC = 0.8
"""A named object larger than this share of the image is not judged: the detector took the scene for it."""
MAX_MASK_IOU = 0.5
"""Masks of two named categories that overlap as much are one object with two names."""

REASONS = ("not_found", "bad_area", "same_object", "reviewed")
"""Why a sample is not judged: what quality_problem says, or a person's verdict."""


def quality_problem(masks: Mapping[str, np.ndarray], categories: tuple[str, ...]) -> str | None:
    """Why a test triplet is not judged; stands in for the authors' check by hand.

    Args:
        masks: the oracle's mask, bool (H, W), of each category that it found.
        categories: what the prompt names.
    Returns: None, 'not_found', 'bad_area' or 'same_object'.
    """
    if any(category not in masks for category in categories):
        return "not_found"
    if not all(MIN_AREA_FRAC <= float(masks[c].mean()) <= MAX_AREA_FRAC for c in categories):
        return "bad_area"
    if any(mask_iou(masks[a], masks[b]) >= MAX_MASK_IOU for a, b in combinations(categories, 2)):
        return "same_object"
    return None


@dataclass
class GroupScores:
    """Counts of one method, by group; a category is scored in the images whose prompt names it."""

    images: dict[str, list[MaskCounts]] = field(default_factory=dict)
    """Of each image."""
    boundary: dict[str, BoundaryCounts] = field(default_factory=dict)
    nmi: dict[str, NmiScores] = field(default_factory=dict)

    def update(self, *, group: str, predictions: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray]) -> None:
        """Add one image. `predictions` and `targets` map its categories to masks, bool (H, W)."""
        counts = MaskCounts()
        self.images.setdefault(group, []).append(counts)
        for category, target in targets.items():
            masks = {"prediction": predictions[category], "target": target}
            counts.update(category=category, **masks)
            self.boundary.setdefault(group, BoundaryCounts()).update(category=category, **masks)
        self.nmi.setdefault(group, NmiScores()).update(
            targets=list(targets.values()), predictions=[predictions[category] for category in targets]
        )

    def table(self, group: str) -> IouTable:
        """IoU by category of `group`, empty when it has no image."""
        return iou_of_masks(sum(self.images.get(group, []), start=MaskCounts()))

    def interval(self, group: str) -> tuple[float, float] | None:
        """95 % interval of the mean of `table` over the images of `group`, 0..1; None without an image."""
        return miou_interval(self.images.get(group, []))

    def boundary_table(self, group: str) -> IouTable:
        """Boundary IoU by category of `group`, empty when it has no image."""
        return self.boundary.get(group, BoundaryCounts()).table()

    def mean_nmi(self, group: str) -> float | None:
        """Mean NMI of the images of `group`, 0..1: the parts are the sets of categories that a pixel shows."""
        return self.nmi.get(group, NmiScores()).mean


def foreground_only(targets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The reference that knows where objects are but not which: the union of all masks for each category."""
    if not targets:
        return {}
    union = np.asarray(np.stack(list(targets.values())).any(axis=0))  # (H, W)
    return dict.fromkeys(targets, union)


MaskMethod = Callable[[Sequence[LabelledSample]], list[dict[str, np.ndarray]]]
"""Predicts masks of a batch: for each sample, category -> bool (H, W), for every category that its prompt names."""


def harmonic_of_groups(miou: Mapping[str, float | None]) -> float | None:
    """One number of a method's mIoU by group (percent), to rank by: harmonic mean of the groups that are seen
    throughout and of those that are unseen throughout, each averaged; None where there is no image of one kind.
    """
    sides = []
    for names in (("one_seen", "two_seen"), ("one_unseen", "two_unseen")):
        scores = [score for name in names if (score := miou.get(name)) is not None]
        if not scores:
            return None
        sides.append(sum(scores) / len(scores))
    return harmonic_mean(*sides)


@dataclass(frozen=True)
class Protocol1Result:
    """Scores of every method on the same samples, and which samples these are."""

    scores: dict[str, GroupScores]
    num_images: dict[str, int]
    """Judged samples, by group."""
    num_rejected: dict[str, int]
    """Samples that were not judged, by reason, one of REASONS."""
    num_rejected_per_category: dict[str, dict[str, int]]
    """Category -> reason -> number of these whose prompt names the category."""
    num_reviewed: int = 0
    """Samples that a person accepted or rejected."""

    def metrics(self) -> dict[str, Any]:
        """mIoU in percent by method and group (None where a group has no image), counts, IoU by category.

        `interval` (95 %, [low, high], from resampled images), `boundary_miou` and `nmi`, in percent too, are by method
        and group as well.
        """
        tables = {m: {group: s.table(group) for group in self.num_images} for m, s in self.scores.items()}
        miou = {m: {group: percent(table.mean) for group, table in groups.items()} for m, groups in tables.items()}
        per_category = {
            m: {group: {c: percent(iou) for c, iou in table.iou.items()} for group, table in groups.items()}
            for m, groups in tables.items()
        }
        boundary_miou = {
            m: {group: percent(s.boundary_table(group).mean) for group in self.num_images}
            for m, s in self.scores.items()
        }
        intervals = {
            m: {
                group: None if (ends := s.interval(group)) is None else [100 * end for end in ends]
                for group in self.num_images
            }
            for m, s in self.scores.items()
        }
        nmi = {m: {group: percent(s.mean_nmi(group)) for group in self.num_images} for m, s in self.scores.items()}
        return {
            **miou,
            "interval": intervals,
            "boundary_miou": boundary_miou,
            "nmi": nmi,
            "num_images": self.num_images,
            "num_rejected": self.num_rejected,
            "num_rejected_per_category": self.num_rejected_per_category,
            "num_reviewed": self.num_reviewed,
            "per_category": per_category,
        }


def run_protocol1(
    samples: Iterable[LabelledSample],
    methods: Mapping[str, MaskMethod],
    *,
    groups: Sequence[str],
    batch_size: int,
    review: Review | None = None,
    workers: Workers | None = None,
) -> Protocol1Result:
    """Judge `methods` on the samples that pass the quality check, `batch_size` samples at a time.

    review: its verdicts go before the check; an accepted sample with a category that the oracle did not find cannot be
    judged all the same, with a warning. workers: each predicts a batch; None uses only this process. For several,
    methods can be pickled. Raises: UserError for a review of other samples or images.
    """
    good, rejected = _judgeable(samples, review)
    result = Protocol1Result(
        scores={name: GroupScores() for name in methods},
        num_images=dict.fromkeys(groups, 0),
        num_rejected={reason: len(rejected[reason]) for reason in REASONS},
        num_rejected_per_category=_by_category(rejected),
        num_reviewed=len(review.entries) if review else 0,
    )
    batches = [good[start : start + batch_size] for start in range(0, len(good), batch_size)]
    with Progress(len(good), description="protocol I") as progress:
        predicted = (workers or Workers()).map(PredictMasks(methods), batches, advance=progress.advance)
        for batch, predictions in zip(batches, predicted, strict=True):
            for i, sample in enumerate(batch):
                result.num_images[sample.group] += 1
                targets = sample.masks()
                for name, scores in result.scores.items():
                    scores.update(group=sample.group, predictions=predictions[name][i], targets=targets)
    return result


def join_metrics(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of two results on the same samples (Protocol1Result.metrics), with the methods of both."""
    both = {**first, **second}
    return {key: {**first.get(key, {}), **value} if isinstance(value, dict) else value for key, value in both.items()}


Rejected = Mapping[str, Sequence[tuple[str, ...]]]
"""Reason -> for each sample that is not judged, the categories that its prompt names."""


def _judgeable(samples: Iterable[LabelledSample], review: Review | None) -> tuple[list[LabelledSample], Rejected]:
    """The samples to judge, and what the others name."""
    good, keys, unjudgeable = [], [], []
    rejected: dict[str, list[tuple[str, ...]]] = {reason: [] for reason in REASONS}
    for sample in samples:
        keys.append(sample.key)
        problem = quality_problem(sample.masks(), sample.categories)
        verdict = review.verdict(sample) if review else None
        if verdict == REJECTED:
            problem = "reviewed"
        elif verdict == ACCEPTED and problem == "not_found":
            unjudgeable.append(sample.key)
        elif verdict == ACCEPTED:
            problem = None
        if problem is None:
            good.append(sample)
        else:
            rejected[problem].append(sample.categories)
    if review:
        review.require_known(keys)
        if unjudgeable:
            logger.warning(
                f"{review.path}: {len(unjudgeable)} accepted samples are not judged, for the detector found no mask of "
                f"a named category: {', '.join(unjudgeable[:5])}{' …' if len(unjudgeable) > 5 else ''}"
            )
    return good, rejected


def _by_category(rejected: Rejected) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for reason, samples in rejected.items():
        for category, number in Counter(name for names in samples for name in names).items():
            counts.setdefault(category, dict.fromkeys(rejected, 0))[reason] = number
    return counts


@dataclass(frozen=True)
class PredictMasks:
    """The masks of every method for one batch, in a worker."""

    methods: Mapping[str, MaskMethod]

    def __call__(self, batch: Sequence[LabelledSample], advance: Advance) -> dict[str, list[dict[str, np.ndarray]]]:
        predictions = {name: method(batch) for name, method in self.methods.items()}
        advance(len(batch))
        return predictions
