"""Protocol I beyond mIoU by group: other scores, scores per category, and numbers of detections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffground.prompts import GROUPS
from diffground.report.tables import GROUP_TITLES, METHOD_TITLES, Table, category_title, score_of

EXTRA_TITLES = {"boundary_miou": "boundary mIoU, %", "nmi": "normalised mutual information, %"}
PARTNERS = {
    "alone": ("one_seen", "one_unseen"),
    "with one of its kind": ("two_seen", "two_unseen"),
    "seen with unseen": ("two_seen_unseen",),
}
"""Other objects in the image of a category -> groups of prompts. A category, seen or unseen, is in one of them."""


def extra_table(metrics: Mapping[str, Any]) -> Table | None:
    """Boundary mIoU and NMI by group, of evaluate_grounding.json; None where it has neither."""
    rows = tuple(
        (title, METHOD_TITLES[method], *(score_of(metrics[key][method], group) for group in GROUPS))
        for key, title in EXTRA_TITLES.items()
        for method in METHOD_TITLES
        if method in metrics.get(key, {})
    )
    return Table(header=("score", "method", *(GROUP_TITLES[group] for group in GROUPS)), rows=rows) if rows else None


def category_table(metrics: Mapping[str, Any], *, unseen: Sequence[str]) -> Table | None:
    """IoU (%) of each category by what else is in the image, grounding module and DAAM; None without such scores."""
    scores = {m: metrics.get("per_category", {}).get(m, {}) for m in ("grounding", "daam")}
    categories = sorted({category for method in scores.values() for group in method.values() for category in group})
    if not categories:
        return None
    rows = tuple(
        (
            category_title(category, unseen),
            *(_iou(scores[method], groups, category) for method in scores for groups in PARTNERS.values()),
        )
        for category in categories
    )
    header = tuple(f"{METHOD_TITLES[method]}, {partner}" for method in scores for partner in PARTNERS)
    return Table(header=("IoU, %", *header), rows=rows)


def detection_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """How much the detector found and what was skipped because it found nothing, from the metrics of detect,
    train_grounding and evaluate_grounding; None where none of these has such numbers."""
    rows = tuple(_detection_rows(metrics))
    return Table(header=("detections", "here"), rows=rows) if rows else None


def detection_category_table(metrics: Mapping[str, Mapping[str, Any]], *, unseen: Sequence[str]) -> Table | None:
    """How many images name each category, with and without it found, and how many test images with it were not judged;
    None without such numbers in detect."""
    found = {name: metrics.get("detect", {}).get(name, {}).get("per_category", {}) for name in ("train", "test")}
    rejected = metrics.get("evaluate_grounding", {}).get("num_rejected_per_category")
    categories = sorted({category for counts in found.values() for category in counts})
    if not categories:
        return None
    rows = tuple(
        (
            category_title(category, unseen),
            *(counts.get(category, {}).get(key, 0) for counts in found.values() for key in ("found", "not_found")),
            None if rejected is None else sum(rejected.get(category, {}).values()),
        )
        for category in categories
    )
    titles = (f"{name} images, {what}" for name in ("training", "test") for what in ("found", "not found"))
    return Table(header=("images that name it", *titles, "test images, not judged"), rows=rows)


def _detection_rows(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, int | float]]:
    detect, training = metrics.get("detect", {}), metrics.get("train_grounding", {})
    for name, title in (("train", "training images"), ("test", "test images")):
        part = detect.get(name, {})
        if "num_images" in part:
            yield title, part["num_images"]
        for kind in ("one_object", "two_objects"):
            share = part.get(f"{kind}_all_found_frac")
            if share is not None:
                yield f"{title}, {kind.replace('_', ' ')}: all found, %", 100.0 * share
    for key, title in (
        ("num_skipped_samples", "training images skipped, nothing found"),
        ("num_queries", "categories named in training images"),
        ("num_skipped_queries", "categories named but skipped, not found"),
    ):
        if key in training:
            yield title, training[key]
    titles = {
        "not_found": "a category not found",
        "bad_area": "a mask too small or too large",
        "same_object": "two categories on one object",
        "reviewed": "rejected by a person",
    }
    for reason, number in metrics.get("evaluate_grounding", {}).get("num_rejected", {}).items():
        yield f"test images not judged: {titles.get(reason, reason)}", number


def _iou(scores: Mapping[str, Mapping[str, Any]], groups: Sequence[str], category: str) -> float | None:
    found = [score_of(scores[group], category) for group in groups if category in scores.get(group, {})]
    return found[0] if found else None
