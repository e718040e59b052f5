"""Mean and spread of the default run's scores over the seeds of its trainings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from diffground.report.experiments import Experiments
from diffground.report.tables import GROUP_TITLES, METHOD_TITLES, TRAINING_TITLES, ZS3_TITLES, Row, Table, score_of
from diffground.reproduction.catalogue import DEFAULT_EXPERIMENT

_REPEATED = re.compile(rf"{DEFAULT_EXPERIMENT}_seed[1-9]\d*")
_TRAINED = {"grounding": METHOD_TITLES["grounding"]}
"""Methods of Protocol I that depend on the seed of a training."""

Scores = Mapping[str, Any]


def spread_tables(metrics: Mapping[str, Scores], experiments: Experiments) -> dict[str, Table]:
    """Tables `spread_protocol1` and `spread_zs3`: mean ± standard deviation over the default run and its repetitions
    with other seeds (`diffground experiments run table2_model_c --seeds N`); none without repetitions.

    metrics: of the default run.
    """
    repeated = [scores for name, scores in sorted(experiments.metrics.items()) if _REPEATED.fullmatch(name)]
    runs = [metrics, *repeated]
    found = {
        "spread_protocol1": _table("mIoU, %", runs, "evaluate_grounding", _TRAINED, keys=GROUP_TITLES),
        "spread_zs3": _table("trained on", runs, "evaluate_zs3", TRAINING_TITLES, keys=ZS3_TITLES),
    }
    return {name: table for name, table in found.items() if table is not None}


def mean_and_spread(scores: Sequence[float]) -> str:
    """ "48.2 ± 1.8": mean and standard deviation of a sample; only the score where there is one."""
    return f"{fmean(scores):.1f} ± {stdev(scores):.1f}" if len(scores) > 1 else f"{scores[0]:.1f}"


def _table(
    title: str, runs: Sequence[Mapping[str, Scores]], stage: str, names: Mapping[str, str], *, keys: Mapping[str, str]
) -> Table | None:
    """A row per name that two runs or more have, with their number."""
    rows = list[Row]()
    for name, row_title in names.items():
        of_name = [run[stage][name] for run in runs if name in run.get(stage, {})]
        if len(of_name) < 2:
            continue
        cells = []
        for key in keys:
            scores = [score for scored in of_name if (score := score_of(scored, key)) is not None]
            cells.append(mean_and_spread(scores) if scores else None)
        rows.append((row_title, *cells, len(of_name)))
    return Table(header=(title, *keys.values(), "seeds"), rows=tuple(rows)) if rows else None
