"""The named experiments: one file of conf/experiment each, described by its opening comment."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from diffground.errors import UserError

CONF = Path("conf/experiment")
DEFAULT_PROFILE = "mini"
"""The names of runs of this profile are those of the experiments."""
DEFAULT_EXPERIMENT = "table2_model_c"
"""The experiment that sets nothing: the default run."""

_FIELD = re.compile(r"^# (\w+): (.+)$", re.MULTILINE)
_NOT_IN_NAMES = re.compile(r"[^\w.]+|\.{2,}")  # not allowed in a git reference
_FIELDS = ("source", "command", "target", "profiles", "time", "expected")


@dataclass(frozen=True)
class Experiment:
    """A file of conf/experiment with its opening comment, or a variation of one."""

    name: str
    source: str
    """Table and row of the paper."""
    target: str
    """The last stage that it needs."""
    command: str = ""
    """The command that runs only this experiment."""
    profiles: str = "all"
    """The profiles that it exists for, "mini, smoke", or "all"."""
    time: str = ""
    expected: str = ""
    """Expected scores, or where they are."""
    overrides: tuple[str, ...] = ()
    """Hydra overrides of its parameters, e.g. "experiment=seen_05", "grounding.iterations=100"."""

    def exists_for(self, profile: str) -> bool:
        return self.profiles == "all" or profile in self.profiles.split(", ")


def read_catalogue(conf: Path = CONF) -> dict[str, Experiment]:
    """Every experiment by name, in the order of the names.

    Raises: UserError for a folder without experiments, and for a file whose comment lacks a field.
    """
    files = sorted(conf.glob("*.yaml"))
    if not files:
        raise UserError(f"{conf}: holds no experiments; run this in the root of a clone of the repository")
    return {path.stem: read_experiment(path) for path in files}


def select(
    catalogue: Mapping[str, Experiment], globs: Sequence[str], *, profile: str | None = None
) -> list[Experiment]:
    """The experiments whose name matches one of `globs` ("table1_*") and that exist for `profile`; all without globs.

    Raises: UserError for a glob that matches nothing, or only experiments that do not exist for `profile`.
    """
    chosen = set[str]()
    for glob in globs or ["*"]:
        named = [name for name in catalogue if fnmatchcase(name, glob)]
        if not named:
            raise UserError(f"no experiment is named '{glob}'; known: {', '.join(catalogue)}")
        existing = [name for name in named if profile is None or catalogue[name].exists_for(profile)]
        if not existing:
            require_profile(catalogue[named[0]], str(profile))
        chosen.update(existing)
    return [experiment for name, experiment in catalogue.items() if name in chosen]


def require_profile(experiment: Experiment, profile: str) -> None:
    """Raises: UserError where `experiment` does not exist for `profile`."""
    if not experiment.exists_for(profile):
        raise UserError(f"experiment {experiment.name} exists for profile {experiment.profiles}, not for '{profile}'")


def run_name(experiment: str, profile: str) -> str:
    """The DVC experiment's name: that of the experiment, with the profile where it is not the default one."""
    return experiment if profile == DEFAULT_PROFILE else f"{experiment}-{profile}"


def vary(experiment: Experiment | None, overrides: Sequence[str], *, target: str = "evaluate_zs3") -> Experiment:
    """`experiment`, or the default run up to the stage `target`, with further overrides, e.g. "grounding.seed=1".

    Its name contains them and a digest, so that different overrides never share a name.
    """
    base = experiment or Experiment(name="default", source="the default run", target=target)
    if not overrides:
        return base
    settings = [override.rpartition("=") for override in overrides]
    words = "_".join(f"{key.rpartition('.')[2]}-{value}" for key, _, value in settings)
    digest = hashlib.sha256("\0".join(overrides).encode()).hexdigest()[:6]
    name = "-".join([base.name, _NOT_IN_NAMES.sub("-", words)[:60].strip("-."), digest])
    source = f"{base.source}; {', '.join(overrides)}"
    return replace(base, name=name, source=source, overrides=(*base.overrides, *overrides))


def repeat(experiments: Sequence[Experiment], num_seeds: int) -> list[Experiment]:
    """Each experiment, and its repetitions NAME_seed1, NAME_seed2 … whose trainings have other seeds.

    Raises: UserError for less than one seed.
    """
    if num_seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {num_seeds}")
    return [_with_seed(experiment, seed) for experiment in experiments for seed in range(num_seeds)]


def _with_seed(experiment: Experiment, seed: int) -> Experiment:
    if not seed:
        return experiment
    overrides = (*experiment.overrides, f"grounding.seed={seed}", f"segmenter.seed={seed}")
    source = f"{experiment.source}; trainings with seed {seed}"
    return replace(experiment, name=f"{experiment.name}_seed{seed}", source=source, overrides=overrides)


def read_experiment(path: Path) -> Experiment:
    """One file of conf/experiment. Raises: UserError for a comment that lacks a field."""
    fields = dict(_FIELD.findall(path.read_text(encoding="utf-8")))
    for name in _FIELDS:
        if name not in fields:
            raise UserError(
                f"{path}: its opening comment lacks '# {name}: …'; add it, as the other experiments have it"
            )
    return Experiment(
        name=path.stem, overrides=(f"experiment={path.stem}",), **{name: fields[name] for name in _FIELDS}
    )
