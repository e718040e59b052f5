"""Protocol I beyond mIoU by group: other scores, scores per category, and numbers of detections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffground.prompts import GROUPS
from diffground.report.tables import GROUP_TITLES, METHOD_TITLES, TITLES, Row, Table, by_category, scores_of

Metrics = Mapping[str, Mapping[str, Any]]
"""Stage -> its metrics file."""


def extra_table(metrics: Mapping[str, Any]) -> Table | None:
    """Boundary mIoU and NMI by group, of evaluate_grounding.json; None where it has neither."""
    rows = tuple(
        (title, METHOD_TITLES[method], *scores_of(metrics[key][method], GROUPS))
        for key, title in TITLES["extra"].items()
        for method in METHOD_TITLES
        if method in metrics.get(key, {})
    )
    return Table(header=("score", "method", *GROUP_TITLES.values()), rows=rows) if rows else None


def interval_table(metrics: Mapping[str, Any]) -> Table | None:
    """The 95 % intervals of the mIoU by group, "83.1 to 85.2", of evaluate_grounding.json; None where it has none."""
    intervals = metrics.get("interval", {})
    rows = tuple(
        (title, *(_interval(intervals[method].get(group)) for group in GROUPS))
        for method, title in METHOD_TITLES.items()
        if method in intervals
    )
    return Table(header=("mIoU, %", *GROUP_TITLES.values()), rows=rows) if rows else None


def _interval(ends: Sequence[float] | None) -> str | None:
    return None if ends is None else f"{ends[0]:.1f} to {ends[1]:.1f}"


def category_table(metrics: Mapping[str, Any], *, unseen: Sequence[str]) -> Table | None:
    """IoU (%) of each category by what its image shows next to it, of the grounding module and DAAM.

    None without such scores.
    """
    scores = metrics.get("per_category", {})
    columns = {
        f"{METHOD_TITLES[method]}, {partner}": {
            category: iou for group in groups for category, iou in scores.get(method, {}).get(group, {}).items()
        }
        for method in ("grounding", "daam")
        for partner, groups in TITLES["partners"].items()
    }
    return by_category("IoU, %", columns, unseen=unseen)


def detection_table(metrics: Metrics) -> Table | None:
    """How much the detector found and what was skipped because it found nothing.

    From detect, train_grounding and evaluate_grounding; None where none of these has such numbers.
    """
    rows = tuple(_detection_rows(metrics))
    return Table(header=("detections", "here"), rows=rows) if rows else None


def detection_category_table(metrics: Metrics, *, unseen: Sequence[str]) -> Table | None:
    """Per category the images that name it, by whether it was found, and the test images that were not judged.

    None without such numbers in detect.
    """
    found = {
        title: metrics.get("detect", {}).get(name, {}).get("per_category", {})
        for name, title in TITLES["detected"].items()
    }
    categories = {category for counts in found.values() for category in counts}
    columns = {
        f"{title}, {key.replace('_', ' ')}": {category: counts.get(category, {}).get(key, 0) for category in categories}
        for title, counts in found.items()
        for key in ("found", "not_found")
    }
    rejected = metrics.get("evaluate_grounding", {}).get("num_rejected_per_category")
    columns["test images, not judged"] = {
        category: None if rejected is None else sum(rejected.get(category, {}).values()) for category in categories
    }
    return by_category("images that name it", columns, unseen=unseen)


def _detection_rows(metrics: Metrics) -> Iterator[Row]:
    detect, training = metrics.get("detect", {}), metrics.get("train_grounding", {})
    for name, title in TITLES["detected"].items():
        part = detect.get(name, {})
        if "num_images" in part:
            yield title, part["num_images"]
        for kind in ("one_object", "two_objects"):
            share = part.get(f"{kind}_all_found_frac")
            if share is not None:
                yield f"{title}, {kind.replace('_', ' ')}: all found, %", 100.0 * share
    for key, title in TITLES["skipped"].items():
        if key in training:
            yield title, training[key]
    for reason, number in metrics.get("evaluate_grounding", {}).get("num_rejected", {}).items():
        yield f"test images not judged: {TITLES['rejected'].get(reason, reason)}", number
