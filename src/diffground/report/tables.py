"""Result tables: the scores of this run next to those of the paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import fmean
from typing import Any

import yaml

from diffground.prompts import GROUPS


def read_packaged_yaml(name: str) -> Any:
    """Content of a YAML file of the package, by its path in it."""
    return yaml.safe_load(_packaged(name))


def _packaged(name: str) -> str:
    return files("diffground").joinpath(name).read_text(encoding="utf-8")


TITLES: Mapping[str, Any] = read_packaged_yaml("report/templates/titles.yaml")
GROUP_TITLES: dict[str, str] = TITLES["groups"]
METHOD_TITLES: dict[str, str] = TITLES["methods"]
TRAINING_TITLES: dict[str, str] = TITLES["trainings"]
ZS3_TITLES: dict[str, str] = TITLES["zs3"]
PAPER_DATASETS: Mapping[str, Sequence[str]] = TITLES["paper_datasets"]
"""Built-in vocabulary -> names of its generated and of its real images in the paper's tables 1 and 2."""
_NO_PAPER = ("", "")
_PAPER = "paper, Stable Diffusion on"

Row = tuple[str | float | None, ...]
Scores = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers under a header; None is a number that does not exist."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def text_columns(self) -> tuple[bool, ...]:
        """For each column whether it holds text: the first column always, any other if one of its cells is text."""
        return tuple(
            column == 0 or any(isinstance(row[column], str) for row in self.rows) for column in range(len(self.header))
        )

    def to_csv(self) -> str:
        """RFC 4180, with LF line ends; an empty field for None."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows(["" if cell is None else cell for cell in row] for row in self.rows)
        return text.getvalue()

    def to_markdown(self) -> str:
        """A GitHub table: text aligned left, numbers aligned right."""
        ruler = ["---" if is_text else "---:" for is_text in self.text_columns]
        lines = [self.header, ruler, *([format_cell(cell) for cell in row] for row in self.rows)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def format_cell(cell: str | float | None) -> str:
    """A float (a score in percent) with one decimal; counts and text unchanged; a dash for None."""
    if cell is None:
        return "–"
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def protocol1_table(metrics: Scores, *, split: str, vocabulary: str = "pascal") -> Table:
    """mIoU (%) by group of prompts: every method of `metrics` (evaluate_grounding.json), then the paper's two.

    `split`: row of the paper's table 1, '1', '2', '3' or 'average'; `vocabulary`: selects the paper's data set; of one
    that the paper does not have there are no rows of it.
    """
    rows: list[Row] = [
        (title, *scores_of(metrics[method], GROUPS)) for method, title in METHOD_TITLES.items() if method in metrics
    ]
    rows.append(("images", *(metrics["num_images"].get(group, 0) for group in GROUPS)))
    dataset = PAPER_DATASETS.get(vocabulary, _NO_PAPER)[0]
    place = f"{dataset.removesuffix('-sim')}, {'mean of three splits' if split == 'average' else f'split {split}'}"
    for row in read_paper_table("paper_table1_protocol1.csv", dataset=dataset, split=split):
        rows.append((f"{METHOD_TITLES[row['method'].lower()]} ({_PAPER} {place})", *scores_of(row, GROUPS)))
    return Table(header=("mIoU, %", *GROUP_TITLES.values()), rows=tuple(rows))


def zs3_table(metrics: Scores, *, vocabulary: str = "pascal") -> Table:
    """mIoU (%) of each segmenter on real images, then the paper's models C and D.

    `metrics`: evaluate_zs3.json, one entry per training set; `vocabulary`: selects the paper's data set.
    """
    with_background = metrics.get("with_background", {})
    rows: list[Row] = []
    for name, title in TRAINING_TITLES.items():
        if name in metrics:
            rows.append((title, *scores_of(metrics[name], ZS3_TITLES)))
        if name in with_background:
            rows.append((f"{title}, background counted", *scores_of(with_background[name], ZS3_TITLES)))
    dataset = PAPER_DATASETS.get(vocabulary, _NO_PAPER)[1]
    for row in read_paper_table("paper_table2_zs3.csv", dataset=dataset):
        if row["method"] in ("Model-C", "Model-D"):
            data = "synthetic and real seen images" if row["trained_on_real_seen"] == "yes" else "synthetic images"
            rows.append((f"{data} ({row['method']}, {_PAPER} {dataset})", *scores_of(row, ZS3_TITLES)))
    return Table(header=("trained on", *ZS3_TITLES.values()), rows=tuple(rows))


def zs3_category_table(metrics: Scores, *, unseen: Sequence[str]) -> Table | None:
    """IoU (%) of every category, one column per training set."""
    scores = metrics["per_category"]
    columns = {title: scores[name] for name, title in TRAINING_TITLES.items() if name in scores}
    return by_category("IoU, %", columns, unseen=unseen)


def by_category(title: str, columns: Mapping[str, Scores], *, unseen: Sequence[str]) -> Table | None:
    """A row per category, in alphabetical order, unseen ones marked; None without any category.

    columns: title -> category -> number; a category that a column lacks has None there.
    """
    categories = sorted({category for column in columns.values() for category in column})
    rows = tuple(
        (
            f"{category} (unseen)" if category in unseen else category,
            *(column.get(category) for column in columns.values()),
        )
        for category in categories
    )
    return Table(header=(title, *columns), rows=rows) if rows else None


def real_images_table(metrics: Scores | None, *, training_data: str, vocabulary: str = "pascal") -> Table | None:
    """mIoU (%) of the grounding module on real images, then the paper's for each kind of training data (PASCAL only).

    `metrics`: entry 'real_images' of evaluate_grounding.json, None without; `training_data`: grounding.training_data.
    """
    if metrics is None:
        return None
    trained_on = f"{METHOD_TITLES['grounding']}, trained on"
    rows: list[Row] = [
        (f"{trained_on} {TITLES['training_data'][training_data]}", *scores_of(metrics["grounding"], ZS3_TITLES)),
        (METHOD_TITLES["foreground_only"], *scores_of(metrics["foreground_only"], ZS3_TITLES)),
        ("images", metrics["num_images"]["seen"], metrics["num_images"]["unseen"], None),
    ]
    if vocabulary == "pascal":
        for row in read_paper_table("paper_ablations.csv", table="training_data"):
            title = f"{trained_on} {row['setting']} ({_PAPER} PASCAL VOC, split 1)"
            rows.append((title, *scores_of(row, ("voc_test_seen", "voc_test_unseen")), None))
    return Table(header=("mIoU, %", *ZS3_TITLES.values()), rows=tuple(rows))


def read_paper_table(name: str, **where: str) -> list[dict[str, str]]:
    """The rows of a published table, as printed in the paper; only those with the values of `where` (column=value)."""
    rows = csv.DictReader(_packaged(f"tables/{name}").splitlines())
    return [row for row in rows if all(row[column] == value for column, value in where.items())]


def mean_of(scores: Iterable[float | None]) -> float | None:
    """None where one of them has no score."""
    given = list(scores)
    known = [score for score in given if score is not None]
    return fmean(known) if len(known) == len(given) else None


def score_of(scores: Scores, key: str) -> float | None:
    """A number of a metrics file or of a published table; None where it has none."""
    value = scores.get(key)
    return None if value is None or value == "" else float(value)


def scores_of(scores: Scores, keys: Iterable[str]) -> tuple[float | None, ...]:
    """score_of for each key."""
    return tuple(score_of(scores, key) for key in keys)
