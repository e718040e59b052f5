"""Grounding on real images, whose latents come from DDIM inversion: mIoU of seen and of unseen categories.

Each image's prompt names categories that it shows, so this judges outlines and which object is which word, not whether
a category is there; the scores are no zero-shot segmentation (evaluation.zs3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffground.data.labelled import LabelledSample
from diffground.evaluation.confusion import MaskCounts
from diffground.evaluation.miou import IouTable, iou_of_masks
from diffground.evaluation.protocol1 import MaskMethod, PredictMasks
from diffground.evaluation.zs3 import ZeroShotTable, zero_shot_table
from diffground.runtime.progress import Progress
from diffground.runtime.workers import Workers


@dataclass(frozen=True)
class RealImageScores:
    """Scores of every method on the same images."""

    tables: dict[str, ZeroShotTable]
    """Method -> means in percent over seen and unseen categories, their harmonic mean, and IoU by category; `absent`
    are the categories that no prompt names. There is no background."""
    num_images: dict[str, int]
    """'all', and those whose prompt names a 'seen', an 'unseen' category; an image may be in both."""

    def metrics(self) -> dict[str, Any]:
        """Means by method, number of images, IoU by method and category, absent categories."""
        means = {m: {"seen": t.seen, "unseen": t.unseen, "harmonic": t.harmonic} for m, t in self.tables.items()}
        return {
            **means,
            "num_images": self.num_images,
            "per_category": {method: table.per_category for method, table in self.tables.items()},
            "absent": sorted({category for table in self.tables.values() for category in table.absent}),
        }


def score_real_images(
    samples: Iterable[LabelledSample],
    methods: Mapping[str, MaskMethod],
    *,
    seen: Sequence[str],
    unseen: Sequence[str],
    batch_size: int,
    workers: Workers | None = None,
) -> RealImageScores:
    """Judge `methods` on samples that real_shards wrote, `batch_size` samples at a time.

    A category is scored over all images whose prompt names it, in pixels that somebody labelled; masks of one image may
    overlap. workers: each predicts a batch; None uses only this process.
    """
    everything = list(samples)
    batches = [everything[start : start + batch_size] for start in range(0, len(everything), batch_size)]
    counts = {name: MaskCounts() for name in methods}
    with Progress(len(everything), description="real images") as progress:
        predicted = (workers or Workers()).map(PredictMasks(methods), batches, advance=progress.advance)
        for batch, predictions in zip(batches, predicted, strict=True):
            for i, sample in enumerate(batch):
                ignored, targets = sample.ignored(), sample.masks()
                for name, of_method in counts.items():
                    for category, target in targets.items():
                        mask = predictions[name][i][category]
                        judged = mask if ignored is None else mask & ~ignored
                        of_method.update(category=category, prediction=judged, target=target)
    tables = {}
    for name, of_method in counts.items():
        iou = iou_of_masks(of_method).iou
        absent = tuple(category for category in (*seen, *unseen) if category not in iou)
        tables[name] = zero_shot_table(IouTable(iou=iou, absent=absent), seen=seen, unseen=unseen)
    num_images = {
        group: sum(any(category in names for category in sample.categories) for sample in everything)
        for group, names in (("seen", seen), ("unseen", unseen))
    }
    return RealImageScores(tables=tables, num_images={**num_images, "all": len(everything)})
