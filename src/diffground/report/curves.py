"""Scores over a swept parameter: the tapped step, the share of seen categories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffground.prompts import GROUPS
from diffground.report.experiments import Experiments
from diffground.report.figures import Line, line_chart
from diffground.report.tables import GROUP_TITLES, Scores, read_paper_table, score_of

_COCO_CATEGORIES = 79  # of the paper's own sweep


def curve_points(metrics: Scores, experiments: Experiments, *, prefix: str, default: int) -> dict[int, Scores]:
    """x -> grounding's scores by group: of the experiments PREFIX_xx, and of the default run at x = `default`.

    Empty when none of these experiments was run.
    """
    runs = {name: experiments.scores(name, "evaluate_grounding") for name in experiments.metrics}
    points = {
        int(name.removeprefix(f"{prefix}_")): scores["grounding"]
        for name, scores in runs.items()
        if name.startswith(f"{prefix}_") and scores is not None
    }
    return dict(sorted({**points, default: metrics["evaluate_grounding"]["grounding"]}.items())) if points else {}


def published_by_num_seen() -> dict[int, dict[str, str]]:
    """Number of seen categories, of COCO's 79 -> row of the paper's sweep."""
    rows = read_paper_table("paper_ablations.csv")
    return {int(row["setting"].split()[0]): row for row in rows if row["table"] == "seen_categories"}


def write_curves(
    metrics: Scores, experiments: Experiments, folder: Path, *, tapped_step: int, num_seen: int, num_categories: int
) -> None:
    """Write timestep.png and seen_categories.png, each only if its experiments were run.

    The default run taps `tapped_step` and has `num_seen` of `num_categories` categories seen.
    """
    steps = curve_points(metrics, experiments, prefix="timestep", default=tapped_step)
    if steps:
        lines = _lines({float(step): scores for step, scores in steps.items()})
        title = "Where the features are tapped"
        line_chart(folder / "timestep.png", lines, title=title, x="step, counted from the clean end", y="mIoU, %")
    seen = curve_points(metrics, experiments, prefix="seen", default=num_seen)
    if seen:
        published = {100 * count / _COCO_CATEGORIES: row for count, row in published_by_num_seen().items()}
        ours = {100 * count / num_categories: scores for count, scores in seen.items()}
        lines = [*_lines(ours), *_lines(published, suffix=" (paper, COCO)", dashed=True)]
        title = "How many categories were seen"
        line_chart(folder / "seen_categories.png", lines, title=title, x="seen categories, %", y="mIoU, %")


def _lines(points: Mapping[float, Scores], *, suffix: str = "", dashed: bool = False) -> list[Line]:
    """One line per group of prompts, without the points that have no score."""
    found = [
        (i, GROUP_TITLES[group], [(x, score_of(scores, group)) for x, scores in points.items()])
        for i, group in enumerate(GROUPS)
    ]
    return [
        Line(f"{title}{suffix}", [(x, y) for x, y in scored if y is not None], colour=i, dashed=dashed)
        for i, title, scored in found
    ]
