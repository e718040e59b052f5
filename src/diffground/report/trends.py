"""Whether the paper's trends hold here: each is a set of comparisons of two scores, ours and the published ones."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffground.prompts import GROUPS
from diffground.report.curves import curve_points, published_by_num_seen
from diffground.report.experiments import Experiments
from diffground.report.experiments_tables import MODELS, zs3_scores
from diffground.report.tables import (
    GROUP_TITLES,
    PAPER_DATASETS,
    ZS3_TITLES,
    Table,
    mean_of,
    read_paper_table,
    score_of,
)

Pair = tuple[str, float | None, float | None]
"""What is compared, and the two scores; the first should be higher. None: not run."""
Scores = Mapping[str, Any]

UNSEEN_GROUPS = ("one_unseen", "two_seen_unseen", "two_unseen")
TWO_OBJECTS = ("two_seen", "two_seen_unseen", "two_unseen")
_ON_REAL = {"voc_test_seen": "real images, seen", "voc_test_unseen": "real images, unseen"}
"""Columns of paper_ablations.csv: grounding on real images (the right half of the paper's table of training data)."""
_TITLES = {**GROUP_TITLES, **ZS3_TITLES, **_ON_REAL}
_BEST_STEP_FRAC = 5 / 50
"""Where the paper's best features are, as a share of the sampling steps, from the clean end."""
_BEST_STEP = "step 5 of 50, from the clean end, is best"

_SIM, _QUARTER = ("sim 40k", ""), ("sim 10k", "data_sim_quarter")
_REAL, _BOTH = ("real (DDIM inversion)", "data_real"), ("sim + real", "data_both")
_ABLATIONS = (
    (
        "Training that ignores missed detections is no worse on unseen categories than training with zero masks",
        "training_type", ("without zero masks", ""), ("normal", "training_normal"), UNSEEN_GROUPS, False,
    ),
    (
        "Training on one and two objects beats training on one object only, on two objects",
        "train_set_objects", ("mixture", ""), ("single", "objects_one"), TWO_OBJECTS, True,
    ),
    (
        "On unseen categories, training on generated images is no worse than on inverted real ones",
        "training_data", _SIM, _REAL, UNSEEN_GROUPS, False,
    ),
    (
        "Training on all generated images is no worse than on a quarter of them, on generated images",
        "training_data", _SIM, _QUARTER, GROUPS, False,
    ),
    (
        "Training on all generated images is no worse than on a quarter of them, on real images",
        "training_data", _SIM, _QUARTER, tuple(_ON_REAL), False,
    ),
    (
        "Generated and real images together (sim + real) beat only real ones, on generated images",
        "training_data", _BOTH, _REAL, GROUPS, True,
    ),
    (
        "Only generated images are no worse than generated and real ones, on generated images",
        "training_data", _SIM, _BOTH, GROUPS, False,
    ),
    (
        "Real images beat generated ones, on real images of seen categories",
        "training_data", _REAL, _SIM, ("voc_test_seen",), True,
    ),
    (
        "Generated images beat real ones, on real images of unseen categories",
        "training_data", _SIM, _REAL, ("voc_test_unseen",), True,
    ),
    (
        "Generated and real images together beat only generated ones, on real images",
        "training_data", _BOTH, _SIM, tuple(_ON_REAL), True,
    ),
    (
        "Generated and real images together beat only real ones, on real images of unseen categories",
        "training_data", _BOTH, _REAL, ("voc_test_unseen",), True,
    ),
)  # fmt: skip
"""Statement, table of paper_ablations.csv, the better and the worse setting, each with its experiment ('' is the
default run), the scores to compare, and whether equal scores contradict the statement."""
_MODELS = (
    (
        "Real images of seen categories in addition to synthetic ones (D against C) help on seen categories",
        "D", "C", ("seen",),
    ),
    (
        "Real images of seen categories (D against C) also help on unseen ones and on the harmonic mean",
        "D", "C", ("unseen", "harmonic"),
    ),
    ("Longer prompts (E against D) help", "E", "D", ("harmonic",)),
    ("Two objects per image (B against A) are better than one", "B", "A", ("harmonic",)),
    ("A mixture (C against B) is better than only two objects", "C", "B", ("harmonic",)),
)  # fmt: skip
"""Statement, the better and the worse model of table 2, the scores to compare."""


@dataclass(frozen=True)
class Trend:
    """A trend in the paper: in every pair of `here`, and of `paper`, the first score is higher."""

    statement: str
    here: Sequence[Pair]
    paper: Sequence[Pair]
    strict: bool = True
    """Whether equal scores contradict it."""
    stated: str = ""
    """What the paper states without numbers to compare; `paper` is empty then."""

    def sentence(self) -> str:
        """The trend, whether it holds here and in the paper's own numbers, and all of these."""
        _, here, numbers_here, paper, numbers_paper = self.cells()
        return f"{self.statement}: {here} here ({numbers_here}); {paper} in the paper ({numbers_paper})."

    def cells(self) -> tuple[str, str, str, str, str]:
        """The parts of the sentence: statement, verdict and numbers here, verdict and numbers in the paper."""
        here, paper = ((self.verdict(pairs), self.numbers(pairs)) for pairs in (self.here, self.paper))
        return (self.statement, *here, *(("stated", self.stated) if self.stated else paper))

    def holds(self, pairs: Sequence[Pair]) -> bool | None:
        """None where a score is missing, or there is no pair at all."""
        above: Callable[[float, float], bool] = operator.gt if self.strict else operator.ge
        complete = [(a, b) for _, a, b in pairs if a is not None and b is not None]
        return all(above(a, b) for a, b in complete) if pairs and len(complete) == len(pairs) else None

    def verdict(self, pairs: Sequence[Pair]) -> str:
        holds = self.holds(pairs)
        return "not run" if holds is None else "holds" if holds else "does not hold"

    @staticmethod
    def numbers(pairs: Sequence[Pair]) -> str:
        """ "one unseen 83.2 against 71.2; …", of the pairs that have both scores."""
        known = [f"{what} {a:.1f} against {b:.1f}" for what, a, b in pairs if a is not None and b is not None]
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
    experiments_tables.splits_of; `vocabulary`: which of the paper's data sets.
    """
    simulated, real = PAPER_DATASETS[vocabulary]
    return [
        *_of_table1(splits, dataset=simulated),
        *_of_ablations(metrics, experiments),
        _of_seen_categories(metrics, experiments, num_seen=num_seen),
        *_of_timesteps(metrics, experiments, num_steps=num_steps, tapped_step=tapped_step),
        *_of_table2(metrics, experiments, dataset=real),
    ]


def trend_table(trends: Iterable[Trend]) -> Table:
    """One row per trend: the parts of its sentence."""
    return Table(
        header=("trend of the paper", "here", "numbers here", "in the paper", "numbers in the paper"),
        rows=tuple(trend.cells() for trend in trends),
    )


def _of_table1(splits: Mapping[str, Scores], *, dataset: str) -> Iterator[Trend]:
    rows = {
        (row["method"], row["split"]): row
        for row in read_paper_table("paper_table1_protocol1.csv")
        if row["dataset"] == dataset
    }
    for split in ("1", "2", "3"):
        ours = splits.get(split, {})
        yield Trend(
            f"Grounding is above DAAM in all five groups of split {split}",
            _pairs(ours.get("grounding"), ours.get("daam"), GROUPS),
            _pairs(rows["grounding", split], rows["DAAM", split], GROUPS),
        )


def _of_ablations(metrics: Scores, experiments: Experiments) -> Iterator[Trend]:
    paper = {(row["table"], row["setting"]): row for row in read_paper_table("paper_ablations.csv")}
    for statement, table, (better, ours), (worse, theirs), keys, strict in _ABLATIONS:
        a, b = (_grounding_scores(experiments.metrics.get(name, {}) if name else metrics) for name in (ours, theirs))
        yield Trend(
            statement,
            _pairs(a, b, keys),
            _pairs(paper[table, better], paper[table, worse], keys),
            strict=strict,
        )


def _grounding_scores(stages: Scores) -> Scores:
    """By group, and on real images under the paper's columns, of the metrics of a run."""
    evaluated = stages.get("evaluate_grounding", {})
    real = evaluated.get("real_images", {}).get("grounding", {})
    return {**evaluated.get("grounding", {}), **{key: real.get(key.removeprefix("voc_test_")) for key in _ON_REAL}}


def _of_seen_categories(metrics: Scores, experiments: Experiments, *, num_seen: int) -> Trend:
    """The default run, which has the most seen categories, against each run with fewer."""
    ours = curve_points(metrics, experiments, prefix="seen", default=num_seen)

    def most_against_fewer(points: Mapping[int, Scores]) -> list[Pair]:
        return [
            (f"{max(points)} against {fewer} seen, {what}", a, b)
            for fewer in points
            if fewer != max(points)
            for what, a, b in _pairs(points[max(points)], points[fewer], UNSEEN_GROUPS)
        ]

    return Trend(
        "With the most seen categories, unseen ones are no worse than with fewer (the paper: on COCO)",
        most_against_fewer(ours),
        most_against_fewer(published_by_num_seen()),
        strict=False,
    )


def _of_timesteps(metrics: Scores, experiments: Experiments, *, num_steps: int, tapped_step: int) -> Iterator[Trend]:
    points = curve_points(metrics, experiments, prefix="timestep", default=tapped_step)
    means = {step: mean_of(score_of(scores, group) for group in GROUPS) for step, scores in points.items()}
    place = max(1, round(_BEST_STEP_FRAC * num_steps))

    def against(step: int, others: Iterable[int]) -> list[Pair]:
        return [(f"steps {step} and {other}:", means.get(step), means[other]) for other in others]

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


def _of_table2(metrics: Scores, experiments: Experiments, *, dataset: str) -> Iterator[Trend]:
    paper = {row["method"]: row for row in read_paper_table("paper_table2_zs3.csv") if row["dataset"] == dataset}
    ours = {m.paper: (zs3_scores(m, metrics, experiments) or ({}, {}))[0] for m in MODELS if m.paper}
    for statement, better, worse, keys in _MODELS:
        a, b = f"Model-{better}", f"Model-{worse}"
        yield Trend(statement, _pairs(ours[a], ours[b], keys), _pairs(paper[a], paper[b], keys))


def _pairs(better: Scores | None, worse: Scores | None, keys: Sequence[str]) -> list[Pair]:
    """One pair per key: a group, or a kind of real images. Values may be texts of a published table."""
    return [(_TITLES[key], score_of(better or {}, key), score_of(worse or {}, key)) for key in keys]
