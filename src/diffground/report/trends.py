"""Whether what the paper found holds here: each of its trends as comparisons of two scores, ours and the published."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffground.prompts import GROUPS
from diffground.report.experiments import Experiments
from diffground.report.experiments_tables import MODELS, zs3_scores
from diffground.report.tables import GROUP_TITLES, PAPER_DATASETS, ZS3_TITLES, Table, read_paper_table, score_of

Pair = tuple[str, float | None, float | None]
"""What is compared, and the two scores; the first is the one that should be higher. None: not run."""
Scores = Mapping[str, Any]

UNSEEN_GROUPS = ("one_unseen", "two_seen_unseen", "two_unseen")
TWO_OBJECTS = ("two_seen", "two_seen_unseen", "two_unseen")


@dataclass(frozen=True)
class Trend:
    """A finding of the paper: in every pair of `here`, and of `paper`, the first score is higher."""

    statement: str
    here: Sequence[Pair]
    paper: Sequence[Pair]
    strict: bool = True
    """Whether equal scores speak against it."""

    def sentence(self) -> str:
        """The trend, whether it holds here and in the paper's own numbers, and all of these."""
        return (
            f"{self.statement}: {self.verdict(self.here)} here ({self.numbers(self.here)}); "
            f"{self.verdict(self.paper)} in the paper ({self.numbers(self.paper)})."
        )

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
    metrics: Scores, experiments: Experiments, splits: Mapping[str, Scores], *, vocabulary: str = "pascal"
) -> list[Trend]:
    """The paper's trends.

    `metrics`: of the default run; `splits`: experiments_tables.splits_of; `vocabulary`: which of the paper's data sets.
    """
    simulated, real = PAPER_DATASETS[vocabulary]
    return [
        *_of_table1(splits, dataset=simulated),
        *_of_ablations(metrics, experiments),
        *_of_table2(metrics, experiments, dataset=real),
    ]


def trend_table(trends: Iterable[Trend]) -> Table:
    """One row a trend: the parts of its sentence."""
    return Table(
        header=("trend of the paper", "here", "numbers here", "in the paper", "numbers in the paper"),
        rows=tuple(
            (t.statement, t.verdict(t.here), t.numbers(t.here), t.verdict(t.paper), t.numbers(t.paper)) for t in trends
        ),
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
            _by_group(ours.get("grounding"), ours.get("daam"), GROUPS),
            _by_group(rows["grounding", split], rows["DAAM", split], GROUPS),
        )


def _of_ablations(metrics: Scores, experiments: Experiments) -> Iterator[Trend]:
    default = metrics.get("evaluate_grounding", {}).get("grounding")
    rows = {(row["table"], row["setting"]): row for row in read_paper_table("paper_ablations.csv")}

    def ours(name: str) -> Scores | None:
        return (experiments.scores(name, "evaluate_grounding") or {}).get("grounding")

    yield Trend(
        "Training that ignores what the detector missed is no worse on unseen categories than training that trusts it",
        _by_group(default, ours("training_normal"), UNSEEN_GROUPS),
        _by_group(rows["training_type", "without zero masks"], rows["training_type", "normal"], UNSEEN_GROUPS),
        strict=False,
    )
    yield Trend(
        "Training on one and two objects is no worse on two objects than training on one alone",
        _by_group(default, ours("objects_one"), TWO_OBJECTS),
        _by_group(rows["train_set_objects", "mixture"], rows["train_set_objects", "single"], TWO_OBJECTS),
        strict=False,
    )
    yield Trend(
        "Grounding learns no less of unseen categories from generated images than from inverted real ones",
        _by_group(default, ours("data_real"), UNSEEN_GROUPS),
        _by_group(rows["training_data", "sim 40k"], rows["training_data", "real (DDIM inversion)"], UNSEEN_GROUPS),
        strict=False,
    )


def _of_table2(metrics: Scores, experiments: Experiments, *, dataset: str) -> Iterator[Trend]:
    paper = {row["method"]: row for row in read_paper_table("paper_table2_zs3.csv") if row["dataset"] == dataset}
    ours = {m.paper: (zs3_scores(m, metrics, experiments) or ({}, {}))[0] for m in MODELS if m.paper}
    for statement, key, better, worse in (
        (
            "Real images of seen categories beside synthetic ones (D against C) help on seen categories",
            "seen",
            "D",
            "C",
        ),
        ("Two objects an image (B against A) are worth more than one", "harmonic", "B", "A"),
        ("A mixture (C against B) is worth more than two objects alone", "harmonic", "C", "B"),
    ):
        a, b = f"Model-{better}", f"Model-{worse}"
        yield Trend(
            statement,
            [(ZS3_TITLES[key], score_of(ours[a], key), score_of(ours[b], key))],
            [(ZS3_TITLES[key], score_of(paper[a], key), score_of(paper[b], key))],
        )


def _by_group(better: Scores | None, worse: Scores | None, groups: Sequence[str]) -> list[Pair]:
    """A pair a group. Values may be texts of a published table."""

    def score(scores: Scores | None, group: str) -> float | None:
        return score_of(scores or {}, group)

    return [(GROUP_TITLES[group], score(better, group), score(worse, group)) for group in groups]
