"""Grounding on real images, whose latents come from DDIM inversion: mIoU of seen and of unseen categories.

Each image's prompt names categories that it shows, so this judges outlines and which object is which word, not whether
a category is there; the scores are no zero-shot segmentation (evaluation.zs3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from diffground.evaluation.miou import IouTable
from diffground.evaluation.protocol1 import GroupScores, MaskMethod, PredictMasks
from diffground.evaluation.zs3 import ZeroShotTable, zero_shot_table
from diffground.grounding.oracle import LabelledSample
from diffground.runtime.progress import Progress
from diffground.runtime.workers import Workers

_ALL = "all"


def score_real_images(
    samples: Iterable[LabelledSample],
    methods: Mapping[str, MaskMethod],
    *,
    seen: Sequence[str],
    unseen: Sequence[str],
    batch_size: int,
    workers: Workers | None = None,
) -> dict[str, ZeroShotTable]:
    """Judge `methods` on samples that real_shards wrote, `batch_size` samples at a time.

    A category is scored over all images whose prompt names it, in pixels that somebody labelled; masks of one image may
    overlap. workers: each predicts a batch; None is this process alone.
    Returns: method -> means in percent over seen and unseen categories, their harmonic mean, and IoU by category;
        `absent` are the categories that no prompt names. There is no background.
    """
    everything = list(samples)
    batches = [everything[start : start + batch_size] for start in range(0, len(everything), batch_size)]
    scores = {name: GroupScores() for name in methods}
    with Progress(len(everything), description="real images") as progress:
        predicted = (workers or Workers()).map(PredictMasks(methods), batches, advance=progress.advance)
        for batch, predictions in zip(batches, predicted, strict=True):
            for i, sample in enumerate(batch):
                ignored = sample.ignored()
                for name, counts in scores.items():
                    masks = predictions[name][i]
                    if ignored is not None:
                        masks = {category: mask & ~ignored for category, mask in masks.items()}
                    counts.update(group=_ALL, predictions=masks, targets=sample.masks())
    tables = {}
    for name, counts in scores.items():
        iou = counts.table(_ALL).iou
        absent = tuple(category for category in (*seen, *unseen) if category not in iou)
        tables[name] = zero_shot_table(IouTable(iou=iou, absent=absent), seen=seen, unseen=unseen)
    return tables
