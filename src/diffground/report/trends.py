"""Whether the paper's findings hold here: each is a list of comparisons of two scores, ours and the published.

A difference of two scores here counts only if it is larger than twice its standard error. The standard deviation of a
score is that of the default run over the seeds of its trainings; both scores of a comparison are taken to have it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import NamedTuple

from diffground.prompts import GROUPS
from diffground.report.curves import curve_points, published_by_num_seen
from diffground.report.experiments import Experiments
from diffground.report.experiments_tables import MODELS, ON_REAL, grounding_scores, zs3_scores
from diffground.report.spread import default_runs
from diffground.report.tables import (
    GROUP_TITLES,
    PAPER_DATASETS,
    ZS3_TITLES,
    Scores,
    Table,
    mean_of,
    read_packaged_yaml,
    read_paper_table,
    score_of,
    scores_of,
)

UNSEEN_GROUPS = ("one_unseen", "two_seen_unseen", "two_unseen")
_TITLES = {**GROUP_TITLES, **ZS3_TITLES, **ON_REAL}
_MEAN = "mean of groups"
_BEST_STEP_FRAC = 5 / 50
"""Where the paper's best features are, as a share of the sampling steps, from the clean end."""
_BEST_STEP = "step 5 of 50, from the clean end, is best"


class Pair(NamedTuple):
    """What is compared, and the two scores; the first should be higher. None: not run."""

    what: str
    higher: float | None
    lower: float | None
    margin: float = 0.0
    """Differences up to it are not called differences."""


@dataclass(frozen=True)
class Trend:
    """A trend in the paper: in every pair of `here`, and of `paper`, the first score is higher."""

    statement: str
    here: Sequence[Pair]
    paper: Sequence[Pair]
    strict: bool = True
    """Whether it needs a difference; otherwise scores without a difference agree with it, too."""
    stated: str = ""
    """What the paper states without numbers to compare; `paper` is empty then."""

    def cells(self) -> tuple[str, str, str, str, str]:
        """The row of `trend_table`: statement, verdict and numbers here, verdict and numbers in the paper."""
        here, paper = ((self.verdict(pairs), self.numbers(pairs)) for pairs in (self.here, self.paper))
        return (self.statement, *here, *(("stated", self.stated) if self.stated else paper))

    def verdict(self, pairs: Sequence[Pair]) -> str:
        """ "not run" where a score is missing, or there is no pair at all; "not decidable" where differences are too
        small."""
        known = [(a - b, margin) for _, a, b, margin in pairs if a is not None and b is not None]
        if not pairs or len(known) < len(pairs):
            return "not run"
        if any(difference < -margin or (self.strict and difference == -margin) for difference, margin in known):
            return "does not hold"
        undecided = self.strict and any(difference <= margin for difference, margin in known)
        return "not decidable" if undecided else "holds"

    @staticmethod
    def numbers(pairs: Sequence[Pair]) -> str:
        """ "one unseen 83.2 against 71.2; …", of the pairs that have both scores."""
        known = [f"{what} {a:.1f} against {b:.1f}" for what, a, b, _ in pairs if a is not None and b is not None]
        return "; ".join(known) or "no numbers"


def find_trends(
    metrics: Scores,
    experiments: Experiments,
    splits: Mapping[str, Scores],
    *,
    num_seen: int,
    num_steps: int,
    tapped_step: int,
    vocabulary: str = "pascal",
) -> list[Trend]:
    """The paper's trends.

    `metrics`: of the default run, which has `num_seen` categories seen and taps `tapped_step` of `num_steps`; `splits`:
    experiments_tables.splits_of; `vocabulary`: selects the paper's data set.
    """
    simulated, real = PAPER_DATASETS[vocabulary]
    margins = _margins(metrics, experiments)
    return [
        *_of_table1(splits, margins, dataset=simulated),
        *_of_ablations(metrics, experiments, margins),
        _of_seen_categories(metrics, experiments, margins, num_seen=num_seen),
        *_of_timesteps(metrics, experiments, margins, num_steps=num_steps, tapped_step=tapped_step),
        *_of_table2(metrics, experiments, margins, dataset=real),
    ]


def trend_table(trends: Iterable[Trend]) -> Table:
    """One row per trend, see Trend.cells."""
    return Table(
        header=("trend of the paper", "here", "numbers here", "in the paper", "numbers in the paper"),
        rows=tuple(trend.cells() for trend in trends),
    )


def _margins(metrics: Scores, experiments: Experiments) -> dict[str, float]:
    """Score -> twice the standard error of a difference of two runs; empty without repetitions of the default run.

    Scores: groups of prompts and their mean, columns of real images, and those of zero-shot segmentation.
    """
    modules, whole = default_runs(metrics, experiments)
    runs = [*map(grounding_scores, modules), *(run.get("evaluate_zs3", {}).get("synthetic", {}) for run in whole)]
    known = {key: [score for run in runs if (score := score_of(run, key)) is not None] for key in _TITLES}
    known[_MEAN] = [mean for run in runs if (mean := mean_of(scores_of(run, GROUPS))) is not None]
    return {key: 2 * math.sqrt(2) * stdev(scores) for key, scores in known.items() if len(scores) > 1}


def _of_table1(splits: Mapping[str, Scores], margins: Mapping[str, float], *, dataset: str) -> Iterator[Trend]:
    for split in ("1", "2", "3"):
        ours = splits.get(split, {})
        published = read_paper_table("paper_table1_protocol1.csv", dataset=dataset, split=split)
        paper = {row["method"]: row for row in published}
        yield Trend(
            f"Grounding is above DAAM in all five groups of split {split}",
            _pairs(ours.get("grounding"), ours.get("daam"), GROUPS, margins),
            _pairs(paper["grounding"], paper["DAAM"], GROUPS),
        )


def _of_ablations(metrics: Scores, experiments: Experiments, margins: Mapping[str, float]) -> Iterator[Trend]:
    paper = {(row["table"], row["setting"]): row for row in read_paper_table("paper_ablations.csv")}
    for finding in read_packaged_yaml("tables/paper_trends.yaml")["ablations"]:
        table, keys = finding["table"], finding["compared"]
        (better, ours), (worse, theirs) = finding["better"], finding["worse"]
        a, b = (grounding_scores(experiments.metrics.get(name, {}) if name else metrics) for name in (ours, theirs))
        yield Trend(
            finding["statement"],
            _pairs(a, b, keys, margins),
            _pairs(paper[table, better], paper[table, worse], keys),
            strict=not finding.get("ties_hold", False),
        )


def _of_seen_categories(
    metrics: Scores, experiments: Experiments, margins: Mapping[str, float], *, num_seen: int
) -> Trend:
    """The run with the most seen categories against each run with fewer."""
    ours = curve_points(metrics, experiments, prefix="seen", default=num_seen)

    def most_against_fewer(points: Mapping[int, Scores], margins: Mapping[str, float]) -> list[Pair]:
        return [
            pair._replace(what=f"{max(points)} against {fewer} seen, {pair.what}")
            for fewer in points
            if fewer != max(points)
            for pair in _pairs(points[max(points)], points[fewer], UNSEEN_GROUPS, margins)
        ]

    return Trend(
        "With the most seen categories, unseen ones are no worse than with fewer (the paper: on COCO)",
        most_against_fewer(ours, margins),
        most_against_fewer(published_by_num_seen(), {}),
        strict=False,
    )


def _of_timesteps(
    metrics: Scores, experiments: Experiments, margins: Mapping[str, float], *, num_steps: int, tapped_step: int
) -> Iterator[Trend]:
    points = curve_points(metrics, experiments, prefix="timestep", default=tapped_step)
    means = {step: mean_of(scores_of(scores, GROUPS)) for step, scores in points.items()}
    place = max(1, round(_BEST_STEP_FRAC * num_steps))

    def against(step: int, others: Iterable[int]) -> list[Pair]:
        margin = margins.get(_MEAN, 0.0)
        return [Pair(f"steps {step} and {other}:", means.get(step), means[other], margin) for other in others]

    yield Trend(
        f"Features are best where a tenth of the sampling is left, here step {place} of {num_steps} (mean of groups)",
        against(place, [step for step in means if step != place]),
        [],
        strict=False,
        stated=_BEST_STEP,
    )
    steps = list(means)
    best = max(steps[1:-1], key=lambda step: means[step] or 0.0, default=None)
    yield Trend(
        "Features are best between the first and the last of the steps that were tried (mean of groups)",
        [] if best is None else against(best, (steps[0], steps[-1])),
        [],
        stated=_BEST_STEP,
    )


def _of_table2(
    metrics: Scores, experiments: Experiments, margins: Mapping[str, float], *, dataset: str
) -> Iterator[Trend]:
    paper = {row["method"]: row for row in read_paper_table("paper_table2_zs3.csv", dataset=dataset)}
    ours = {m.paper: (zs3_scores(m, metrics, experiments) or ({}, {}))[0] for m in MODELS if m.paper}
    for finding in read_packaged_yaml("tables/paper_trends.yaml")["models"]:
        a, b, keys = finding["better"], finding["worse"], finding["compared"]
        yield Trend(finding["statement"], _pairs(ours[a], ours[b], keys, margins), _pairs(paper[a], paper[b], keys))


def _pairs(
    better: Scores | None, worse: Scores | None, keys: Sequence[str], margins: Mapping[str, float] | None = None
) -> list[Pair]:
    """A pair per key: a group, or a kind of real images. margins: None for published scores."""
    return [
        Pair(_TITLES[key], score_of(better or {}, key), score_of(worse or {}, key), (margins or {}).get(key, 0.0))
        for key in keys
    ]
