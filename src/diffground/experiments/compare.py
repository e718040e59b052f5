"""A table of the scores of several runs: committed records, DVC experiments and MLflow's reproductions, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffground.errors import UserError
from diffground.experiments.collect import read_results
from diffground.prompts import GROUPS
from diffground.report.experiments import read_record
from diffground.report.tables import METHOD_TITLES, TRAINING_TITLES, ZS3_TITLES, Table
from diffground.reproduction import paths
from diffground.reproduction.commands import experiment_commits
from diffground.reproduction.config import TrackingConfig
from diffground.reproduction.metrics import flatten, read_metrics
from diffground.tracking import reproduction_metrics

HERE = "here"
"""Name of the run in reports/metrics."""

_ROWS = (
    *(f"evaluate_grounding/{method}/{group}" for method in METHOD_TITLES for group in GROUPS),
    *(f"evaluate_grounding/real_images/{method}/{key}" for method in METHOD_TITLES for key in ZS3_TITLES),
    *(
        f"evaluate_zs3/{part}{name}/{key}"
        for part in ("", "with_background/")
        for name in TRAINING_TITLES
        for key in ZS3_TITLES
    ),
    *(f"evaluate_zs3/text2mask_labels/{key}" for key in ZS3_TITLES),
)
"""mIoU in percent; MLflow uses the same keys."""
_MOVED = {f"text2mask/{key}": f"evaluate_zs3/text2mask_labels/{key}" for key in ZS3_TITLES}
"""Key in records and MLflow runs from when stage text2mask scored its own label maps -> key now."""


def comparison(names: Sequence[str], *, root: Path = Path(), tracking: TrackingConfig) -> Table:
    """One row per score, one column per run, then the differences to the first run; mIoU in percent.

    names: each is a record of reports/experiments, a DVC experiment, the name or id of a parent run in MLflow, in this
    order of search, or 'here' for reports/metrics. `Table` writes Markdown and CSV.
    Raises: UserError for a name that is none of these, or that is repeated.
    """
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UserError(f"'{twice[0]}' is named twice; name each run once")
    scores_of = [run_scores(name, root=root, tracking=tracking) for name in names]
    runs = [{_MOVED.get(key, key): score for key, score in scores.items()} for scores in scores_of]
    rows = []
    for key in _ROWS:
        scores = [run.get(key) for run in runs]
        if any(score is not None for score in scores):
            rows.append((key, *scores, *(_difference(score, scores[0]) for score in scores[1:])))
    if not rows:
        raise UserError(f"{', '.join(names)}: no scores yet; run `dvc repro evaluate_grounding evaluate_zs3`")
    return Table(header=("mIoU, %", *names, *(f"{name} − {names[0]}" for name in names[1:])), rows=tuple(rows))


def run_scores(name: str, *, root: Path, tracking: TrackingConfig) -> dict[str, float]:
    """Flat metrics 'stage/…' of one run. Raises: UserError for a name that no run has."""
    if name == HERE:
        folder = root / paths.METRICS
        return _flat({path.stem: read_metrics(path.stem, folder=folder) for path in folder.glob("*.json")})
    record = root / paths.EXPERIMENTS / f"{name}.json"
    if record.is_file():
        return _flat(read_record(record).metrics)
    experiments = experiment_commits(cwd=root) if (root / ".git").exists() else {}
    if name in experiments:
        return _flat(read_results(experiments[name][0], root=root).metrics(root=root))
    found = reproduction_metrics(name, tracking)
    if found is None:
        known = sorted({HERE, *(path.stem for path in record.parent.glob("*.json")), *experiments})
        raise UserError(
            f"no record, DVC experiment or MLflow run is named '{name}'; known here: {', '.join(known)}, "
            "and the parent runs in MLflow"
        )
    return found


def _flat(metrics: Mapping[str, Mapping[str, object]]) -> dict[str, float]:
    return {key: score for stage, values in metrics.items() for key, score in flatten(values, prefix=stage).items()}


def _difference(score: float | None, first: float | None) -> float | None:
    return None if score is None or first is None else round(score - first, 2)
