"""Result tables: the scores of this run next to the paper's."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import fmean
from typing import Any

from diffground.prompts import GROUPS

GROUP_TITLES = {
    "one_seen": "one seen",
    "one_unseen": "one unseen",
    "two_seen": "two seen",
    "two_seen_unseen": "seen + unseen",
    "two_unseen": "two unseen",
}
METHOD_TITLES = {
    "grounding": "grounding module",
    "daam": "DAAM",
    "foreground_only": "foreground only (reference)",
    "detector_mirrored": "detector, of the mirrored image (reference)",
}
TRAINING_TITLES = {
    "synthetic": "synthetic images, all categories",
    "synthetic_and_real_seen": "synthetic images, and real ones of seen categories",
    "real_seen_only": "real images, seen categories",
    "text2mask": "real images, labels of whole images (From Text to Mask)",
    "real_all": "real images, all categories (upper bound)",
}
TRAINING_DATA_TITLES = {
    "sim": "sim (generated images)",
    "real": "real (DDIM inversion)",
    "both": "sim + real",
}
ZS3_TITLES = {"seen": "seen", "unseen": "unseen", "harmonic": "harmonic mean"}
PAPER_DATASETS = {
    "pascal": ("PASCAL-sim", "PASCAL VOC"),
    "coco": ("COCO-sim", "COCO"),
    "sticker_coco": ("COCO-sim", "COCO"),
}
"""Table of the vocabulary -> names of its generated and of its real images in the paper's tables 1 and 2."""
_PAPER = "paper, Stable Diffusion on"


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers under a header; None is a number that does not exist."""

    header: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]

    @property
    def text_columns(self) -> tuple[bool, ...]:
        """For each column whether it holds text: the first one, which names the rows, and all that have a word."""
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
        """A GitHub table: text to the left, numbers to the right."""
        ruler = ["---" if is_text else "---:" for is_text in self.text_columns]
        lines = [self.header, ruler, *([format_cell(cell) for cell in row] for row in self.rows)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def format_cell(cell: str | float | None) -> str:
    """One decimal for a score in percent, as given for counts and text."""
    if cell is None:
        return "–"
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def protocol1_table(metrics: Mapping[str, Any], *, split: str, vocabulary: str = "pascal") -> Table:
    """mIoU (%) by group of prompts: every method of `metrics` (evaluate_grounding.json), then the paper's two.

    `split`: row of the paper's table 1, '1', '2', '3' or 'average'; `vocabulary`: which of its data sets.
    """
    rows: list[tuple[str | float | None, ...]] = [
        (title, *(score_of(metrics[method], group) for group in GROUPS))
        for method, title in METHOD_TITLES.items()
        if method in metrics
    ]
    rows.append(("images", *(metrics["num_images"].get(group, 0) for group in GROUPS)))
    dataset = PAPER_DATASETS[vocabulary][0]
    for row in read_paper_table("paper_table1_protocol1.csv"):
        if row["dataset"] == dataset and row["split"] == split:
            place = dataset.removesuffix("-sim")
            title = f"{METHOD_TITLES[row['method'].lower()]} ({_PAPER} {place}, {_split_title(split)})"
            rows.append((title, *(float(row[group]) for group in GROUPS)))
    return Table(header=("mIoU, %", *(GROUP_TITLES[group] for group in GROUPS)), rows=tuple(rows))


def zs3_table(metrics: Mapping[str, Any], *, vocabulary: str = "pascal") -> Table:
    """mIoU (%) on real images of segmenters trained without real labels of unseen categories, then the paper's.

    `metrics`: evaluate_zs3.json, one entry per training set; `vocabulary`: which of the paper's data sets.
    """
    with_background = metrics.get("with_background", {})
    rows: list[tuple[str | float | None, ...]] = []
    for name, title in TRAINING_TITLES.items():
        if name in metrics:
            rows.append((title, *(score_of(metrics[name], key) for key in ZS3_TITLES)))
        if name in with_background:
            scores = with_background[name]
            rows.append((f"{title}, background counted", *(score_of(scores, key) for key in ZS3_TITLES)))
    dataset = PAPER_DATASETS[vocabulary][1]
    for row in read_paper_table("paper_table2_zs3.csv"):
        if row["dataset"] == dataset and row["method"] in ("Model-C", "Model-D"):
            data = "synthetic and real seen images" if row["trained_on_real_seen"] == "yes" else "synthetic images"
            title = f"{data} ({row['method']}, {_PAPER} {dataset})"
            rows.append((title, *(float(row[key]) for key in ZS3_TITLES)))
    return Table(header=("trained on", *ZS3_TITLES.values()), rows=tuple(rows))


def zs3_category_table(metrics: Mapping[str, Any], *, unseen: Sequence[str]) -> Table:
    """IoU (%) of every category, one column per training set; unseen categories are marked."""
    scores = metrics["per_category"]
    names = [name for name in TRAINING_TITLES if name in scores]
    categories = sorted({category for name in names for category in scores[name]})
    rows = tuple(
        (
            category_title(category, unseen),
            *(score_of(scores[name], category) for name in names),
        )
        for category in categories
    )
    return Table(header=("IoU, %", *(TRAINING_TITLES[name] for name in names)), rows=rows)


def real_images_table(
    metrics: Mapping[str, Any] | None, *, training_data: str, vocabulary: str = "pascal"
) -> Table | None:
    """mIoU (%) of the grounding module on real images, then the paper's for each kind of training data (PASCAL only).

    `metrics`: entry 'real_images' of evaluate_grounding.json, None without; `training_data`: grounding.training_data.
    """
    if metrics is None:
        return None
    titles = {
        "grounding": f"{METHOD_TITLES['grounding']}, trained on {TRAINING_DATA_TITLES[training_data]}",
        "foreground_only": METHOD_TITLES["foreground_only"],
    }
    rows: list[tuple[str | float | None, ...]] = [
        (title, *(score_of(metrics[method], key) for key in ZS3_TITLES)) for method, title in titles.items()
    ]
    rows.append(("images", metrics["num_images"]["seen"], metrics["num_images"]["unseen"], None))
    for row in read_paper_table("paper_ablations.csv"):
        if row["table"] == "training_data" and vocabulary == "pascal":
            title = f"{METHOD_TITLES['grounding']}, trained on {row['setting']} ({_PAPER} PASCAL VOC, split 1)"
            rows.append((title, float(row["voc_test_seen"]), float(row["voc_test_unseen"]), None))
    return Table(header=("mIoU, %", *ZS3_TITLES.values()), rows=tuple(rows))


def read_paper_table(name: str) -> list[dict[str, str]]:
    """The rows of a published table that ships with the package, as printed in the paper."""
    text = files("diffground").joinpath(f"tables/{name}").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def category_title(category: str, unseen: Sequence[str]) -> str:
    """ "dog", or "dog (unseen)"."""
    return f"{category} (unseen)" if category in unseen else category


def mean_of(scores: Iterable[float | None]) -> float | None:
    """None where one of them has no score."""
    given = list(scores)
    known = [score for score in given if score is not None]
    return fmean(known) if len(known) == len(given) else None


def score_of(scores: Mapping[str, Any], key: str) -> float | None:
    """Number of a metrics file; None where it has none."""
    value = scores.get(key)
    return None if value is None else float(value)


def _split_title(split: str) -> str:
    return "mean of three splits" if split == "average" else f"split {split}"
