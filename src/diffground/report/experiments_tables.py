"""The paper's tables, with the scores of experiments next to the published ones. Only what was run has a row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from diffground.prompts import GROUPS
from diffground.report.experiments import Experiments
from diffground.report.tables import (
    GROUP_TITLES,
    METHOD_TITLES,
    PAPER_DATASETS,
    TITLES,
    ZS3_TITLES,
    Row,
    Scores,
    Table,
    mean_of,
    read_packaged_yaml,
    read_paper_table,
    scores_of,
)

ON_REAL: Mapping[str, str] = TITLES["on_real"]
"""Columns of paper_ablations.csv: grounding on real images (the right half of the paper's table of training data)."""


@dataclass(frozen=True)
class Model:
    """A row of table 2; paper_rows.yaml describes the fields."""

    title: str
    training_set: str
    seen_from: str
    unseen_from: str
    experiment: str = ""
    in_default: bool = True
    paper: str = ""


_ROWS = read_packaged_yaml("report/templates/paper_rows.yaml")
MODELS = tuple(Model(**row) for row in _ROWS["table2"])
_REAL = next(model.seen_from for model in MODELS if model.training_set == "real_all")

_SEEN = re.compile(r"seen_(\d+)")

Ablations = Mapping[str, tuple[str, Mapping[str, str]]]
"""Key in paper_ablations.csv -> title, and setting -> experiment, '' for the default run."""


def ablations_of(experiments: Experiments, *, num_seen: int) -> Ablations:
    """The paper's tables of settings. `num_seen`: seen categories of the default run."""
    seen = {int(match[1]): name for name in experiments.metrics if (match := _SEEN.fullmatch(name))}
    seen = {**seen, num_seen: ""}
    tables = {key: (table["title"], dict(table["settings"])) for key, table in _ROWS["ablations"].items()}
    tables["seen_categories"][1].update({f"{number} seen": name for number, name in sorted(seen.items())})
    return tables


def splits_of(metrics: Scores, experiments: Experiments, *, split: str) -> dict[str, Scores]:
    """Split of the paper -> evaluate_grounding metrics: the default run's, of `split`, and those of experiments."""
    splits: dict[str, Scores] = {}
    for number in ("1", "2", "3"):
        scores = experiments.scores(f"table1_split{number}", "evaluate_grounding")
        found = metrics["evaluate_grounding"] if number == split else scores
        if found is not None:
            splits[number] = found
    return splits


def table1(splits: Mapping[str, Scores], *, vocabulary: str = "pascal") -> Table:
    """mIoU (%) by group: each method on every split of `splits`, the mean if there are all three, and the paper's.

    `vocabulary`: selects the paper's data set.
    """
    published = read_paper_table("paper_table1_protocol1.csv", dataset=PAPER_DATASETS[vocabulary][0])
    paper = {(row["method"].lower(), row["split"]): scores_of(row, GROUPS) for row in published}
    rows: list[Row] = []
    for method, title in METHOD_TITLES.items():
        ours = {split: scores_of(metrics[method], GROUPS) for split, metrics in splits.items() if method in metrics}
        if len(ours) == 3:
            ours["average"] = tuple(mean_of(scores) for scores in zip(*ours.values(), strict=True))
        for split in ("1", "2", "3", "average"):
            name = f"{title}, {'mean' if split == 'average' else f'split {split}'}"
            if split in ours:
                rows.append((name, "here", *ours[split]))
            if (method, split) in paper:
                rows.append((name, "paper", *paper[method, split]))
    return Table(header=("mIoU, %", "", *GROUP_TITLES.values()), rows=tuple(rows))


def table2(metrics: Scores, experiments: Experiments, *, vocabulary: str = "pascal") -> Table:
    """mIoU (%) on real images, without and with the background, and the data that each segmenter learned from."""
    published = read_paper_table("paper_table2_zs3.csv", dataset=PAPER_DATASETS[vocabulary][1])
    paper = {row["method"]: (*scores_of(row, ZS3_TITLES), None, None, None) for row in published}
    rows: list[Row] = []
    for model in MODELS:
        learnt_from = (model.seen_from, model.unseen_from)
        scores = zs3_scores(model, metrics, experiments)
        if scores is not None:
            rows.append(
                (model.title, "here", *learnt_from, *(s for part in scores for s in scores_of(part, ZS3_TITLES)))
            )
        if model.paper:
            rows.append((model.title, "paper", *learnt_from, *paper.pop(model.paper)))
    rows += [(method, "paper", _REAL, None, *published_scores) for method, published_scores in paper.items()]
    titles = tuple(ZS3_TITLES.values())
    header = (
        "segmenter",
        "",
        "seen learned from",
        "unseen learned from",
        *titles,
        *(f"{t}, background" for t in titles),
    )
    return Table(header=header, rows=tuple(rows))


def zs3_scores(model: Model, metrics: Scores, experiments: Experiments) -> tuple[Scores, Scores] | None:
    """Scores without and with the background, of the experiment, else of the default run; None without any."""
    runs = [experiments.metrics.get(model.experiment, {}), *([metrics] if model.in_default else [])]
    for zs3 in (stages.get("evaluate_zs3", {}) for stages in runs):
        if model.training_set in zs3:
            return zs3[model.training_set], zs3.get("with_background", {}).get(model.training_set, {})
    return None


def ablation_table(metrics: Scores, experiments: Experiments, *, num_seen: int) -> Table | None:
    """mIoU (%) of grounding, on generated images by group, and on inverted real images where these were scored.

    Only ablations of which an experiment was run; None without any. `num_seen`: seen categories of the
    default run.
    """
    rows: list[Row] = []
    for key, (title, settings) in ablations_of(experiments, num_seen=num_seen).items():
        if not any(name in experiments.metrics for name in settings.values() if name):
            continue
        for setting, name in settings.items():
            stages = experiments.metrics.get(name) if name else metrics
            if stages is not None:
                rows.append((title, setting, "here", *scores_of(grounding_scores(stages), (*GROUPS, *ON_REAL))))
        for row in read_paper_table("paper_ablations.csv", table=key):
            place = f"{row['setting']}; {row['dataset']}"
            rows.append((title, place, "paper", *scores_of(row, (*GROUPS, *ON_REAL))))
    header = ("ablation", "setting", "", *GROUP_TITLES.values(), *ON_REAL.values())
    return Table(header=header, rows=tuple(rows)) if rows else None


def grounding_scores(stages: Scores) -> Scores:
    """mIoU of the grounding module in the metrics of a run: by group, and on real images under the keys of ON_REAL."""
    evaluated = stages.get("evaluate_grounding", {})
    real = evaluated.get("real_images", {}).get("grounding", {})
    return {**evaluated.get("grounding", {}), **{key: real.get(key.removeprefix("voc_test_")) for key in ON_REAL}}
