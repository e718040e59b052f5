"""Compose params.yaml for a profile and an experiment without losing edited values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from diffground.errors import UserError
from diffground.reproduction import paths
from diffground.reproduction.commands import git_file, output_of
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import load_params
from flows.choices import EXPERIMENTS
from flows.places import ROOT, command_environment

_CONF = ROOT / "conf"
_SMOKE_MODELS = ROOT / "models/smoke"


def set_parameters(profile: str | None, experiment: str | None, *, on_line: Callable[[str], None]) -> None:
    """Compose params.yaml as `diffground profile PROFILE experiment=EXPERIMENT` does, unless it is equal already.

    Without either, params.yaml stays as it is, edited or not.
    Raises: UserError if edited values would be lost, and for names and values that do not compose.
    """
    if profile is None and experiment is None:
        return
    path = ROOT / paths.PARAMS
    current = path.read_text(encoding="utf-8") if path.is_file() else None
    profile = profile or load_params(path).profile
    overrides = [f"experiment={experiment}"] if experiment else []
    wanted = compose_params(profile, conf=_CONF, overrides=overrides)
    if current == wanted and (profile != "smoke" or _SMOKE_MODELS.is_dir()):
        return
    if current is not None and current not in _recoverable(current):
        raise UserError(
            f"{paths.PARAMS} holds values that neither git nor conf/ has; run without a profile to use them, "
            f"commit them, or drop them with `git checkout {paths.PARAMS}`"
        )
    command = [sys.executable, "-m", "diffground", "profile", profile, *overrides]
    on_line(output_of(command, cwd=ROOT, env=command_environment()))


def _recoverable(text: str) -> Iterator[str]:
    """Texts of params.yaml that can be restored: the last commit's, and the compositions of its profile."""
    committed = git_file("HEAD", paths.PARAMS.as_posix(), cwd=ROOT)
    if committed is not None:
        yield committed
    yield from _compositions(text)


def _compositions(text: str) -> Iterator[str]:
    from diffground.reproduction.lock_file import read_yaml

    values = read_yaml(text)
    profile = values.get("profile") if isinstance(values, dict) else None
    for overrides in ([], *([f"experiment={name}"] for name in EXPERIMENTS)):
        try:
            yield compose_params(str(profile), conf=_CONF, overrides=overrides)
        except UserError:  # an experiment of other categories
            continue
