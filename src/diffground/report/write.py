"""Tables and charts of a reproduction, from its metrics files and from those of experiments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffground.prompts import GROUPS
from diffground.report.curves import write_curves
from diffground.report.experiments import Experiments
from diffground.report.experiments_tables import ablation_table, splits_of, table1, table2
from diffground.report.figures import grouped_bars, loss_curves
from diffground.report.protocol1_tables import (
    category_table,
    detection_category_table,
    detection_table,
    extra_table,
    interval_table,
)
from diffground.report.remarks import remarks
from diffground.report.spread import spread_tables
from diffground.report.steps_table import steps_table
from diffground.report.tables import (
    GROUP_TITLES,
    METHOD_TITLES,
    PAPER_DATASETS,
    TITLES,
    TRAINING_TITLES,
    ZS3_TITLES,
    Table,
    protocol1_table,
    read_packaged_yaml,
    real_images_table,
    zs3_category_table,
    zs3_table,
)
from diffground.report.trends import Trend, find_trends, trend_table
from diffground.reproduction.config import Params
from diffground.vocabulary import is_built_in, load_vocabulary


def result_tables(
    metrics: Mapping[str, Mapping[str, Any]], params: Params, experiments: Experiments
) -> dict[str, Table]:
    """Name -> table, only of those for which there are scores.

    metrics: of the default run, at least evaluate_grounding and evaluate_zs3.
    """
    grounding, zs3 = metrics["evaluate_grounding"], metrics["evaluate_zs3"]
    ours, vocabulary = params.vocabulary.load(), _paper_vocabulary(params)
    unseen, split = ours.unseen, paper_split(ours.unseen, vocabulary=vocabulary)
    splits = splits_of(metrics, experiments, split=split)
    num_seen = len(ours.seen)
    tables = {
        "protocol1": protocol1_table(grounding, split=split, vocabulary=vocabulary),
        "protocol1_intervals": interval_table(grounding),
        "protocol1_extra": extra_table(grounding),
        "protocol1_categories": category_table(grounding, unseen=unseen),
        "detections": detection_table(metrics),
        "detections_categories": detection_category_table(metrics, unseen=unseen),
        "steps": steps_table(metrics, unseen=unseen),
        "real_images": real_images_table(
            grounding.get("real_images"), training_data=params.grounding.training_data, vocabulary=vocabulary
        ),
        "zs3": zs3_table(zs3, vocabulary=vocabulary),
        "zs3_categories": zs3_category_table(zs3, unseen=unseen),
        "table1": table1(splits, vocabulary=vocabulary) if splits and vocabulary else None,
        "table2": table2(metrics, experiments, vocabulary=vocabulary) if vocabulary else None,
        "ablations": ablation_table(metrics, experiments, num_seen=num_seen),
        "trends": trend_table(trends_of(metrics, params, experiments)) if vocabulary else None,
        **spread_tables(metrics, experiments),
    }
    return {name: table for name, table in tables.items() if table is not None}


def trends_of(metrics: Mapping[str, Mapping[str, Any]], params: Params, experiments: Experiments) -> list[Trend]:
    """The paper's findings, with the numbers of this run and of experiments next to the published ones.

    None for a vocabulary that the paper does not have.
    """
    ours, vocabulary = params.vocabulary.load(), _paper_vocabulary(params)
    if not vocabulary:
        return []
    splits = splits_of(metrics, experiments, split=paper_split(ours.unseen, vocabulary=vocabulary))
    return find_trends(
        metrics,
        experiments,
        splits,
        num_seen=len(ours.seen),
        num_steps=params.generator.num_steps,
        tapped_step=params.generator.tapped_step,
        vocabulary=vocabulary,
    )


def notes_of(metrics: Mapping[str, Mapping[str, Any]], params: Params) -> dict[str, str]:
    """Name of a table -> a caution about the scores of this run in it."""
    vocabulary = _paper_vocabulary(params)
    split = paper_split(params.vocabulary.load().unseen, vocabulary=vocabulary)
    notes = remarks(metrics["evaluate_grounding"], split=split, vocabulary=vocabulary)
    if "on" in metrics["evaluate_zs3"]:
        notes |= dict.fromkeys(("zs3", "segmented"), TITLES["without_real_images"])
    return notes


def write_tables(tables: Mapping[str, Table], folder: Path) -> None:
    """Write each as NAME.csv and NAME.md."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        (folder / f"{name}.csv").write_text(table.to_csv(), encoding="utf-8")
        (folder / f"{name}.md").write_text(table.to_markdown(), encoding="utf-8")


def write_charts(
    metrics: Mapping[str, Mapping[str, Any]], params: Params, experiments: Experiments, folder: Path
) -> None:
    """Write protocol1.png, zs3.png and loss.png; timestep.png, seen_categories.png where experiments were run."""
    protocol1, zs3 = metrics["evaluate_grounding"], metrics["evaluate_zs3"]
    grouped_bars(
        folder / "protocol1.png",
        {
            title: {GROUP_TITLES[group]: protocol1[method].get(group) for group in GROUPS}
            for method, title in METHOD_TITLES.items()
            if method in protocol1
        },
        title="Protocol I: masks of generated images",
        unit="mIoU, %",
    )
    grouped_bars(
        folder / "zs3.png",
        {
            title: {title_of_key: zs3[name].get(key) for key, title_of_key in ZS3_TITLES.items()}
            for name, title in TRAINING_TITLES.items()
            if name in zs3
        },
        title=f"Zero-shot segmentation of {zs3.get('on', 'real images')}",
        unit="mIoU, %",
    )
    curves = {name: points for stage in sorted(metrics) for name, points in find_curves(metrics[stage], name=stage)}
    loss_curves(folder / "loss.png", curves, title="Training")
    vocabulary = params.vocabulary.load()
    write_curves(
        metrics,
        experiments,
        folder,
        tapped_step=params.generator.tapped_step,
        num_seen=len(vocabulary.seen),
        num_categories=len(vocabulary.seen) + len(vocabulary.unseen),
    )


def find_curves(values: Mapping[str, Any], *, name: str) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Every loss curve in a metrics file: a mapping that holds the equally long lists `iterations` and `losses`."""
    if "iterations" in values and "losses" in values:
        yield name, list(zip(values["iterations"], values["losses"], strict=True))
    for key, inner in values.items():
        if isinstance(inner, Mapping):
            yield from find_curves(inner, name=name if key == "loss" else f"{name}: {key}")


def paper_split(unseen: Sequence[str], *, vocabulary: str = "pascal") -> str:
    """'1', '2' or '3' when `unseen` is that split of the paper (supplementary B.1), as far as this vocabulary has its
    categories, or 'average'."""
    if vocabulary not in PAPER_DATASETS:
        return "average"
    splits = read_packaged_yaml("tables/category_splits.yaml")[PAPER_DATASETS[vocabulary][0]]["unseen"]
    known = set(load_vocabulary(vocabulary).categories)
    found = (name.removeprefix("split") for name, names in splits.items() if known.intersection(names) == set(unseen))
    return next(found, "average")


def _paper_vocabulary(params: Params) -> str:
    """The name of a built-in vocabulary, whose numbers the paper has; else empty."""
    return params.vocabulary.load().name if is_built_in(params.vocabulary.file) else ""
