"""Finished DVC experiments -> reports/experiments/NAME.json, read only from their commits."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

from diffground.report.experiments import (
    ExperimentRecord,
    Setup,
    differing,
    effective_params,
    input_digests,
    write_record,
)
from diffground.reproduction import paths
from diffground.reproduction.catalogue import Experiment, run_name
from diffground.reproduction.commands import experiment_commits, git, git_file
from diffground.reproduction.composition import compose_params
from diffground.reproduction.lock_file import Stages, combine, metrics_files, read_stages, read_yaml
from diffground.reproduction.recovery import LOCK
from diffground.runtime.fingerprint import checkpoint_fingerprint


def collect_experiments(experiments: Sequence[Experiment], *, profile: str, root: Path) -> dict[str, Path | None]:
    """Write a record of the newest run of each experiment, by `diffground experiments run` or `dvc exp run -n NAME`.

    One that was not run, but whose parameters are those of the committed default run, has the default run's results.
    Returns: name of the run -> file; None for what was not run with `profile` up to its target.
    Raises: UserError when git fails, or conf/ does not compose.
    """
    written: dict[str, Path | None] = {}
    for name, record in find_records(experiments, profile=profile, root=root).items():
        written[name] = None
        if record is not None:
            written[name] = root / paths.EXPERIMENTS / f"{name}.json"
            write_record(root / paths.EXPERIMENTS / f"{name}.json", record)
    return written


def find_records(experiments: Sequence[Experiment], *, profile: str, root: Path) -> dict[str, ExperimentRecord | None]:
    """The records that `collect_experiments` writes, by the name of the run. Raises: UserError as it does."""
    commits = experiment_commits(cwd=root)
    records: dict[str, ExperimentRecord | None] = {}
    for experiment in experiments:
        name = run_name(experiment.name, profile)
        if name in commits:
            commit, baseline = commits[name]
            record = _record(experiment, read_results(commit, root=root), baseline=baseline, root=root)
        else:
            record = _default_record(experiment, profile=profile, root=root)
        records[name] = record if record is not None and record.setup.profile == profile else None
    return records


@dataclass(frozen=True)
class Results:
    """The results in a commit."""

    commit: str
    params: Mapping[str, Any]
    stages: Stages
    holding: set[str]
    """Stages whose entry in dvc.lock is valid for these parameters."""

    def metrics(self, *, root: Path) -> dict[str, Mapping[str, Any]]:
        """Metrics of the stages in `holding`, by stage."""
        files = metrics_files(self.stages, self.holding, folder=paths.METRICS.as_posix())
        texts = {stage: git_file(self.commit, path, cwd=root) for stage, path in files.items()}
        return {stage: json.loads(text) for stage, text in texts.items() if text is not None}


def read_results(commit: str, *, root: Path, params: Mapping[str, Any] | None = None) -> Results:
    """`params`: default: those of the commit."""
    if params is None:
        params = read_yaml(git_file(commit, paths.PARAMS.as_posix(), cwd=root) or "")
    stages, holding = combine([read_stages(git_file(commit, LOCK.name, cwd=root) or "")], params)
    return Results(commit=commit, params=params, stages=stages, holding=holding)


def _default_record(experiment: Experiment, *, profile: str, root: Path) -> ExperimentRecord | None:
    """The record of the committed default run; None if its parameters are not those of the experiment."""
    commit = git("log", "-1", "--format=%H", "--", LOCK.name, cwd=root)
    if not commit:
        return None
    composed = read_yaml(compose_params(profile, conf=root / "conf", overrides=experiment.overrides))
    return _record(experiment, read_results(commit, root=root, params=composed), baseline=commit, root=root)


def _record(experiment: Experiment, results: Results, *, baseline: str, root: Path) -> ExperimentRecord | None:
    """The record of `results`; None if they do not reach the experiment's target."""
    params = results.params
    if experiment.target not in results.holding:
        return None
    plain, changed = (
        effective_params(read_yaml(compose_params(params["profile"], conf=root / "conf", overrides=overrides)))
        for overrides in ((), experiment.overrides)
    )
    return ExperimentRecord(
        experiment=experiment.name,
        setup=Setup(
            profile=params["profile"],
            checkpoint=params["generator"]["checkpoint"],
            sha256=_fingerprint(params["generator"]["checkpoint"], commit=results.commit, root=root),
        ),
        commit=baseline,
        inputs=input_digests(results.stages, target=experiment.target),
        changed=differing(changed, plain),
        params=effective_params(params),
        metrics=results.metrics(root=root),
    )


def _fingerprint(checkpoint: str, *, commit: str, root: Path) -> str:
    """Fingerprint of the folder in `commit`; of the present folder if git does not track it."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", commit, "--", checkpoint], cwd=root, capture_output=True, check=False
    )
    if archive.returncode:
        folder = root / checkpoint
        return checkpoint_fingerprint(folder) if folder.exists() else checkpoint
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):  # extraction with a filter came with Python 3.11.4
                path = Path(temporary) / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(cast(IO[bytes], tar.extractfile(member)).read())
        return checkpoint_fingerprint(Path(temporary) / checkpoint)
