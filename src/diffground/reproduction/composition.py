"""Composition of conf/ into params.yaml, the same that `dvc exp run -S` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffground.atomic import write_atomically
from diffground.errors import UserError, in_one_line
from diffground.reproduction.catalogue import read_experiment, require_profile
from diffground.reproduction.config import Params
from diffground.reproduction.params import build_params


def compose_params(name: str, *, conf: Path, overrides: Sequence[str] = ()) -> str:
    """params.yaml of profile `name`, checked. `overrides` are Hydra's, e.g. "grounding.iterations=100".

    Raises: UserError for an unknown profile, an experiment that does not exist for it, an override that fits nothing,
    and parameters that load_params refuses.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    require_known(name, conf=conf)
    for override in overrides:
        file = conf / "experiment" / f"{override.removeprefix('experiment=')}.yaml"
        if override.startswith("experiment=") and file.is_file():
            require_profile(read_experiment(file), name)
    try:
        with initialize_config_dir(str(conf.resolve()), version_base=None):
            composed = compose("config", overrides=[f"profile={name}", *overrides])
        OmegaConf.resolve(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{conf}: cannot be composed: {in_one_line(error, limit=None)}") from None
    build_params(OmegaConf.to_container(composed), Params, source=f"profile '{name}'")
    return OmegaConf.to_yaml(composed)


def require_known(name: str, *, conf: Path) -> None:
    """Raises: UserError where conf/profile has no `name`."""
    known = sorted(path.stem for path in (conf / "profile").glob("*.yaml"))
    if not known:
        raise UserError(f"{conf}: holds no profiles; run this in the root of a clone of the repository")
    if name not in known:
        raise UserError(f"profile must be one of {', '.join(known)}, got '{name}'")


def write_params(text: str, path: Path) -> None:
    """Write composed parameters, whole or not at all."""
    write_atomically(path, text)
