"""Records of named experiments, one JSON file each: setup, changed parameters and scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from diffground.atomic import write_atomically
from diffground.errors import UserError
from diffground.reproduction import paths
from diffground.reproduction.config import Params
from diffground.reproduction.params import flat_params
from diffground.runtime.fingerprint import checkpoint_fingerprint

WITHOUT_EFFECT = ("runtime", "tracking")
"""Sections of the parameters that do not change results."""
_BATCHES = {
    f"{section}.batch_size" for section in ("generator", "detector", "daam", "inversion", "text2mask")
}  # of frozen models: they change no result either


@dataclass(frozen=True)
class Setup:
    """Results are compared only if they have the same setup."""

    profile: str
    checkpoint: str
    """Folder or hub id of the generator."""
    sha256: str
    """diffground.runtime.fingerprint.checkpoint_fingerprint of it; for a hub id, the id."""

    def describe(self) -> str:
        """ "profile mini, generator models/mini/diffusion (0123456789ab)"."""
        digest = f" ({self.sha256[:12]})" if self.sha256 != self.checkpoint else ""
        return f"profile {self.profile}, generator {self.checkpoint}{digest}"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class ExperimentRecord:
    """One finished experiment."""

    experiment: str
    """Name of its file in conf/experiment."""
    setup: Setup
    commit: str
    """Commit of this repository that it ran from."""
    inputs: Mapping[str, str]
    """Stage, up to the last that it needs -> input_digests."""
    changed: Mapping[str, Any]
    """Parameters that the experiment sets: 'section.key' -> value, where the plain profile has another."""
    params: Mapping[str, Any]
    """All parameters that affect results, in the same form."""
    metrics: Mapping[str, Mapping[str, Any]]
    """Stage -> its metrics file, of the stages that ran with these parameters."""


@dataclass(frozen=True)
class Experiments:
    """Experiments that are comparable with the default run, and a line about each that is not."""

    setup: Setup
    """Of the default run."""
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Experiment -> stage -> metrics."""
    left_out: Sequence[str]
    other_inputs: Mapping[str, str] = field(default_factory=dict)
    """Comparable experiment -> commit and stages, where these had other inputs than in the default run."""

    def note(self, globs: Iterable[str]) -> str:
        """One sentence on the entries of `other_inputs` that match one of `globs`; '' without any."""
        named = [
            f"{name} ({what})"
            for name, what in self.other_inputs.items()
            if any(fnmatchcase(name, glob) for glob in globs)
        ]
        return f"Run with other code, models or files than the default run: {', '.join(named)}." if named else ""

    def scores(self, experiment: str, stage: str) -> Mapping[str, Any] | None:
        """Metrics of one stage; None when the experiment, or that stage of it, was not run."""
        return self.metrics.get(experiment, {}).get(stage)


def write_record(path: Path, record: ExperimentRecord) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    write_atomically(path, json.dumps(asdict(record), indent=1, sort_keys=True) + "\n")


def read_records(folder: Path = paths.EXPERIMENTS) -> list[ExperimentRecord]:
    """Every record of `folder`, in the order of the file names. Raises: UserError for another file."""
    return [read_record(path) for path in sorted(folder.glob("*.json"))]


def comparable(
    records: Iterable[ExperimentRecord],
    setup: Setup,
    params: Mapping[str, Any],
    *,
    inputs: Mapping[str, str] | None = None,
) -> Experiments:
    """Split `records` into those that differ from the default run only in what they set themselves, and the rest.

    `params`: the default run's, as `effective_params` gives them. A parameter that a record lacks is no
    difference. One that the experiment sets but did not run with is a difference. `inputs`: the default run's, as
    `default_inputs` gives them; a record with others stays, and `other_inputs` names it.
    """
    metrics: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    other_inputs = {}
    left_out = []
    for record in records:
        others = sorted(
            key
            for key, value in {**params, **record.changed}.items()
            if record.params.get(key, value) != value and key != "profile"
        )
        if record.setup != setup:
            left_out.append(f"{record.experiment}: {record.setup.describe()}")
        elif others:
            left_out.append(f"{record.experiment}: {', '.join(f'{key} = {record.params[key]}' for key in others)}")
        else:
            metrics[record.experiment] = record.metrics
            stages = sorted(set(differing(record.inputs, inputs or {})) & set(inputs or {}))
            if stages:
                other_inputs[record.experiment] = f"commit {record.commit[:8]}: {', '.join(stages)}"
    return Experiments(setup=setup, metrics=metrics, left_out=left_out, other_inputs=other_inputs)


def comparable_experiments(params: Params) -> Experiments:
    """The records of reports/experiments, compared with a default run with `params`."""
    checkpoint = params.generator.checkpoint
    setup = Setup(profile=params.profile, checkpoint=checkpoint, sha256=checkpoint_fingerprint(checkpoint))
    return comparable(read_records(), setup, effective_params(asdict(params)), inputs=default_inputs())


def effective_params(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Flat parameters without those that do not change results; tuples become lists."""
    flat = flat_params({section: values for section, values in sections.items() if section not in WITHOUT_EFFECT})
    kept = {key: value for key, value in flat.items() if key not in _BATCHES}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def differing(params: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `params` that `default` does not have, or has another value for."""
    return {key: value for key, value in params.items() if key not in default or default[key] != value}


def read_record(path: Path) -> ExperimentRecord:
    """The record in one file. Raises: UserError for another file."""
    try:
        return TypeAdapter(ExperimentRecord).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise UserError(
            f"{path}: no record of an experiment ({f'{place}: ' if place else ''}{problem['msg']}); "
            "run `diffground experiments collect`"
        ) from None


def input_digests(stages: Mapping[str, Any], *, target: str | None = None) -> dict[str, str]:
    """Stage -> SHA-256 (16 hexadecimal digits) of paths and hashes of the inputs that no other stage made.

    These are code, models and files of the user. Two runs with equal digests and parameters did the same, whatever
    their commits; where digests differ, DVC would run the stage again.

    stages: those of a dvc.lock, name -> entry. target: only this stage and those whose outputs it needs.
    """
    makers = {out["path"]: name for name, entry in stages.items() for out in entry.get("outs", [])}
    digests: dict[str, str] = {}
    queue = list(stages) if target is None else [target]
    while queue:
        name = queue.pop()
        if name in digests:
            continue
        deps = {dep["path"]: str(dep.get("md5")) for dep in stages[name].get("deps", [])}
        queue += [makers[path] for path in deps if path in makers]
        inputs = "".join(f"{path}\0{deps[path]}\n" for path in sorted(deps) if path not in makers)
        digests[name] = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    return digests


def default_inputs(lock: Path = Path("dvc.lock")) -> dict[str, str]:
    """input_digests of the default run, from `lock`; empty without the file."""
    stages = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages") if lock.is_file() else None
    return input_digests(stages or {})
