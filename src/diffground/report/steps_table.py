"""Each category's scores after every step of the method, side by side: which step is the weak one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffground.report.tables import TITLES, TRAINING_TITLES, Table, by_category

Scores = Mapping[str, float | None]
"""Category -> percent."""


def steps_table(metrics: Mapping[str, Mapping[str, Any]], *, unseen: Sequence[str]) -> Table | None:
    """Per category, in percent: test images in which the detector finds it, IoU of its masks, IoU of segmenters.

    metrics: stage -> its metrics file. None without scores of masks.
    """
    detect, grounding, zs3 = (metrics.get(name, {}) for name in ("detect", "evaluate_grounding", "evaluate_zs3"))
    masks = grounding.get("per_category", {}).get("grounding", {})
    of_segmenters = zs3.get("per_category", {})
    columns: dict[str, Scores] = {
        "generated": _found_percent(detect.get("test", {}).get("per_category", {})),
        "masks_generated": {c: iou for group in TITLES["partners"]["alone"] for c, iou in masks.get(group, {}).items()},
        "masks_real": grounding.get("real_images", {}).get("per_category", {}).get("grounding", {}),
        **{name: of_segmenters[name] for name in ("synthetic", "real_all") if name in of_segmenters},
    }
    if not columns["masks_generated"]:
        return None
    titles = {**TITLES["steps"], **{name: f"segmenter: {title}" for name, title in TRAINING_TITLES.items()}}
    return by_category("%", {titles[name]: scores for name, scores in columns.items() if scores}, unseen=unseen)


def _found_percent(counts: Mapping[str, Mapping[str, int]]) -> Scores:
    return {
        category: 100 * of["found"] / num
        for category, of in counts.items()
        if (num := of.get("found", 0) + of.get("not_found", 0))
    }
