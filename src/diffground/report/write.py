"""Tables, charts and the page of a reproduction, from its metrics files."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffground.config import Params
from diffground.prompts import GROUPS
from diffground.report.figures import grouped_bars, loss_curves
from diffground.report.html import Section, render_page
from diffground.report.tables import (
    GROUP_TITLES,
    METHOD_TITLES,
    PAPER_DATASETS,
    TRAINING_TITLES,
    ZS3_TITLES,
    Table,
    protocol1_table,
    real_images_table,
    zs3_category_table,
    zs3_table,
)

PROTOCOL1_TEXT = "Category-wise mIoU of masks against the oracle on generated images, by what the prompt names."
REAL_IMAGES_TEXT = (
    "Masks of real validation images, whose latents come from DDIM inversion. Each prompt names what its image shows, "
    "so no category has to be recognised: this is not zero-shot segmentation."
)
ZS3_TEXT = (
    "MaskFormer on real validation images. Background pixels are not evaluated, as in this benchmark; "
    "rows that count them are marked."
)
WITHOUT_EFFECT = ("runtime", "tracking")
"""Sections of the parameters that change no result: another device makes the same page."""


def result_tables(metrics: Mapping[str, Mapping[str, Any]], params: Params) -> dict[str, Table]:
    """Name -> table, from the metrics of stages evaluate_grounding and evaluate_zs3.

    'real_images' is there where grounding was scored on real images.
    """
    name = params.vocabulary.name
    split = paper_split(params.vocabulary.unseen, vocabulary=name)
    tables = {
        "protocol1": protocol1_table(metrics["evaluate_grounding"], split=split, vocabulary=name),
        "zs3": zs3_table(metrics["evaluate_zs3"], vocabulary=name),
        "zs3_categories": zs3_category_table(metrics["evaluate_zs3"], unseen=params.vocabulary.unseen),
    }
    if "real_images" in metrics["evaluate_grounding"]:
        tables["real_images"] = real_images_table(
            metrics["evaluate_grounding"]["real_images"], training_data=params.grounding.training_data, vocabulary=name
        )
    return tables


def write_tables(tables: Mapping[str, Table], folder: Path) -> None:
    """Write each as NAME.csv and NAME.md."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        (folder / f"{name}.csv").write_text(table.to_csv(), encoding="utf-8")
        (folder / f"{name}.md").write_text(table.to_markdown(), encoding="utf-8")


def write_charts(metrics: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write protocol1.png, zs3.png and loss.png."""
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
        title="Zero-shot segmentation of real images",
        unit="mIoU, %",
    )
    curves = {name: points for stage in sorted(metrics) for name, points in find_curves(metrics[stage], name=stage)}
    loss_curves(folder / "loss.png", curves, title="Training")


def find_curves(values: Mapping[str, Any], *, name: str) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Every loss curve in a metrics file: a mapping that holds the equally long lists `iterations` and `losses`."""
    if "iterations" in values and "losses" in values:
        yield name, list(zip(values["iterations"], values["losses"], strict=True))
    for key, inner in values.items():
        if isinstance(inner, Mapping):
            yield from find_curves(inner, name=name if key == "loss" else f"{name}: {key}")


def write_page(path: Path, *, tables: Mapping[str, Table], figures: Sequence[Path], params: Params) -> None:
    """Write the page at `path`, with the parameters that shape results; the figures are linked relative to it."""
    links = {figure.stem: figure.relative_to(path.parent).as_posix() for figure in figures}
    sections = [
        Section("Protocol I", PROTOCOL1_TEXT, tables["protocol1"], [links["protocol1"]]),
        Section("Zero-shot segmentation", ZS3_TEXT, tables["zs3"], [links["zs3"]]),
        Section("Zero-shot segmentation by category", "The same, one category a row.", tables["zs3_categories"]),
        Section(
            "Grounded synthetic images", "The first image of each kind, not chosen by hand.", None, [links["masks"]]
        ),
        Section("Real images", "The first images of the validation list.", None, [links["real"]]),
        Section("Training", "Mean loss over 50 optimizer steps a point.", None, [links["loss"]]),
    ]
    if "real_images" in tables:
        sections.insert(1, Section("Grounding on real images", REAL_IMAGES_TEXT, tables["real_images"]))
    settings = {
        f"{section}.{key}": value
        for section, values in asdict(params).items()
        if isinstance(values, dict) and section not in WITHOUT_EFFECT
        for key, value in values.items()
    }
    page = render_page(title=f"diffground: profile {params.profile}", sections=sections, settings=settings)
    path.write_text(page, encoding="utf-8")


def paper_split(unseen: Sequence[str], *, vocabulary: str = "pascal") -> str:
    """'1', '2' or '3' when `unseen` is that split of this vocabulary in the paper (supplementary B.1), or 'average'."""
    import yaml

    text = importlib.resources.files("diffground").joinpath("tables/category_splits.yaml").read_text(encoding="utf-8")
    splits = yaml.safe_load(text)[PAPER_DATASETS[vocabulary][0]]["unseen"]
    return next((name.removeprefix("split") for name, names in splits.items() if set(names) == set(unseen)), "average")
