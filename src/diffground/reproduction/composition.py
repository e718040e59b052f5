"""Composition of conf/ into params.yaml, the same that `dvc exp run -S` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffground.errors import UserError, in_one_line
from diffground.reproduction.catalogue import read_experiment, require_profile
from diffground.reproduction.config import Params
from diffground.reproduction.params import build_params

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose_params(name: str, *, conf: Path, overrides: Sequence[str] = ()) -> str:
    """params.yaml of profile `name`, checked. `overrides` are Hydra's, e.g. "grounding.iterations=100".

    Raises: UserError for an unknown profile, an experiment that does not exist for it, an override that fits nothing,
    and parameters that load_params refuses.
    """
    from omegaconf import OmegaConf

    require_known(name, conf=conf)
    for override in overrides:
        file = conf / "experiment" / f"{override.removeprefix('experiment=')}.yaml"
        if override.startswith("experiment=") and file.is_file():
            require_profile(read_experiment(file), name)
    composed = compose("config", conf=conf, overrides=[f"profile={name}", *overrides])
    build_params(OmegaConf.to_container(composed), Params, source=f"profile '{name}'")
    return OmegaConf.to_yaml(composed)


def compose(root_config: str, *, conf: Path, overrides: Sequence[str] = ()) -> DictConfig:
    """The resolved values of `conf`/`root_config`.yaml, as DVC composes them. Raises: UserError where that fails."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with hydra.initialize_config_dir(str(conf.resolve()), version_base=None):
            composed = hydra.compose(root_config, overrides=[*overrides])
        OmegaConf.resolve(composed)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{conf / root_config}.yaml: cannot be composed: {in_one_line(error, limit=None)}") from None
    return composed


def require_known(name: str, *, conf: Path) -> None:
    """Raises: UserError where conf/profile has no `name`."""
    known = sorted(path.stem for path in (conf / "profile").glob("*.yaml"))
    if not known:
        raise UserError(f"{conf}: holds no profiles; run this in the root of a clone of the repository")
    if name not in known:
        raise UserError(f"profile must be one of {', '.join(known)}, got '{name}'")
