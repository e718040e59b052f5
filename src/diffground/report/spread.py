"""Mean and spread of the default run's scores over the seeds of its trainings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from diffground.report.experiments import Experiments
from diffground.report.tables import GROUP_TITLES, TITLES, TRAINING_TITLES, ZS3_TITLES, Row, Table, score_of
from diffground.reproduction.catalogue import DEFAULT_EXPERIMENT

MODULES: Mapping[str, str] = TITLES["modules"]
"""Experiment -> its row in `spread_protocol1`."""
DEFAULT_MODULE = "module_both"
"""The experiment that trains the default run's module, and no segmenter."""

Scores = Mapping[str, Any]


def spread_tables(metrics: Mapping[str, Scores], experiments: Experiments) -> dict[str, Table]:
    """Tables `spread_protocol1` and `spread_zs3`: mean ± standard deviation over runs whose trainings have other seeds
    (`diffground experiments run table2_model_c 'module_*' --seeds N`). Without such runs there is only the first, where
    more than one module was trained.

    metrics: of the default run.
    """
    runs = {name: _runs(name, experiments) for name in MODULES}
    runs[DEFAULT_MODULE], of_default = default_runs(metrics, experiments)
    modules = {MODULES[name]: _of(of_name, "evaluate_grounding", "grounding") for name, of_name in runs.items()}
    segmenters = {title: _of(of_default, "evaluate_zs3", name) for name, title in TRAINING_TITLES.items()}
    tables = {}
    if _is_repeated(modules) or sum(map(bool, modules.values())) > 1:
        tables["spread_protocol1"] = _table("mIoU, %", modules, GROUP_TITLES)
    if _is_repeated(segmenters):
        tables["spread_zs3"] = _table("trained on", segmenters, ZS3_TITLES)
    return tables


def default_runs(
    metrics: Mapping[str, Scores], experiments: Experiments
) -> tuple[list[Mapping[str, Scores]], list[Mapping[str, Scores]]]:
    """The default run, `metrics`, and its repetitions with other seeds: of its module's training, of all trainings."""
    modules, whole = (_runs(name, experiments, from_seed=1) for name in (DEFAULT_MODULE, DEFAULT_EXPERIMENT))
    return [metrics, *modules], [metrics, *whole]


def mean_and_spread(scores: Sequence[float]) -> str:
    """ "48.2 ± 1.8": mean and standard deviation of a sample; only the score where there is one."""
    return f"{fmean(scores):.1f} ± {stdev(scores):.1f}" if len(scores) > 1 else f"{scores[0]:.1f}"


def _runs(name: str, experiments: Experiments, *, from_seed: int = 0) -> list[Mapping[str, Scores]]:
    """The metrics of an experiment and its repetitions; from_seed 1: only of these."""
    repeated = re.compile(rf"{re.escape(name)}(_seed[1-9][0-9]*){'' if from_seed else '?'}")
    return [metrics for found, metrics in sorted(experiments.metrics.items()) if repeated.fullmatch(found)]


def _of(runs: Sequence[Mapping[str, Scores]], stage: str, name: str) -> list[Scores]:
    return [run[stage][name] for run in runs if name in run.get(stage, {})]


def _is_repeated(rows: Mapping[str, Sequence[Scores]]) -> bool:
    return any(len(runs) > 1 for runs in rows.values())


def _table(title: str, rows: Mapping[str, Sequence[Scores]], keys: Mapping[str, str]) -> Table:
    """A row per title that was run, with the number of runs."""
    found = list[Row]()
    for row_title, runs in rows.items():
        if not runs:
            continue
        scores = [[score for run in runs if (score := score_of(run, key)) is not None] for key in keys]
        found.append((row_title, *(mean_and_spread(of_key) if of_key else None for of_key in scores), len(runs)))
    return Table(header=(title, *keys.values(), "seeds"), rows=tuple(found))
