"""Cautions about measured scores: a sentence next to the table that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from diffground.prompts import GROUPS
from diffground.report.tables import PAPER_DATASETS, TITLES, ZS3_TITLES, read_paper_table, score_of

FAR_BELOW_FRAC = 0.5
"""A score below this share of the paper's is far below it."""


def remarks(metrics: Mapping[str, Any], *, split: str, vocabulary: str = "pascal") -> dict[str, str]:
    """Name of a table -> sentence, for protocol1 and real_images if they need one.

    `metrics`: of evaluate_grounding; `split`: row of the paper's table 1, '1', '2', '3' or 'average'; `vocabulary`:
    selects its data set.
    """
    found = {
        "protocol1": _weak_daam(metrics.get("daam", {}), split=split, dataset=PAPER_DATASETS[vocabulary][0])
        if vocabulary in PAPER_DATASETS
        else "",
        "real_images": _below_the_reference(metrics.get("real_images", {})),
    }
    return {name: sentence for name, sentence in found.items() if sentence}


def _weak_daam(daam: Mapping[str, Any], *, split: str, dataset: str) -> str:
    """Judged on the groups that have a score."""
    (published,) = read_paper_table("paper_table1_protocol1.csv", dataset=dataset, method="DAAM", split=split)
    groups = [group for group in GROUPS if score_of(daam, group) is not None]
    if not groups:
        return ""
    here, paper = (fmean(float(scores[group]) for group in groups) for scores in (daam, published))
    return "" if here >= FAR_BELOW_FRAC * paper else str(TITLES["weak_daam"]).format(here=here, paper=paper)


def _below_the_reference(real: Mapping[str, Any]) -> str:
    grounding, reference = real.get("grounding", {}), real.get("foreground_only", {})
    below = [
        f"{title} {a:.1f} against {b:.1f}"
        for key, title in ZS3_TITLES.items()
        if (a := score_of(grounding, key)) is not None and (b := score_of(reference, key)) is not None and a < b
    ]
    return str(TITLES["below_the_reference"]).format(scores=", ".join(below)) if below else ""
