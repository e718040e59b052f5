"""Which reproduction a stage belongs to: commit, DVC experiment and parameters; and how runs are tagged with it."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffground.errors import UserError
from diffground.reproduction.commands import git
from diffground.reproduction.config import Params
from diffground.reproduction.params import flat_params
from diffground.runtime.fingerprint import generator_fingerprint
from diffground.tracking.models import COMMIT, DVC_EXPERIMENT, PROFILE, STAGE

# files that DVC and `diffground profile` write while the pipeline runs; they are not changes of the code
_WRITTEN_BY_RUNS = ("dvc.lock", "params.yaml", "reports")


def describe_reproduction(params: Params) -> dict[str, Any]:
    """Digest, name, parameters and tags of the parent run; its stages have the same tags."""
    # runtime and tracking settings do not make another reproduction
    settings = {key: value for key, value in asdict(params).items() if key not in ("runtime", "tracking")}
    commit, experiment = _git("rev-parse", "--verify", "HEAD"), os.environ.get("DVC_EXP_NAME", "")
    identity = json.dumps([commit, experiment, settings], sort_keys=True)
    p = params.generator
    fingerprint = generator_fingerprint(p.checkpoint, config_from=p.config_from, loras=p.loras)
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "diffground",
        "mlflow.source.git.commit": commit,
        COMMIT: commit,
        PROFILE: params.profile,
        "diffground.dirty": str(_is_dirty()).lower(),
        "diffground.generator": p.checkpoint,
        "diffground.generator.sha256": fingerprint,
        DVC_EXPERIMENT: experiment,
    }
    return {
        "digest": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "name": experiment or f"{params.profile} {commit[:8]}".strip(),
        "params": params_as_text(settings),
        "tags": {key: value for key, value in tags.items() if value},
    }


def describe_stage(stage: str, params: Params, reproduction: Mapping[str, Any]) -> dict[str, Any]:
    """Name, parameters and tags of a stage's run."""
    return {
        "name": stage,
        "params": params_as_text({"runtime": asdict(params.runtime)}),
        "tags": {**reproduction["tags"], STAGE: stage, "mlflow.source.name": f"stages/{stage}.py"},
    }


def params_as_text(values: Mapping[str, Any]) -> dict[str, str]:
    """Nested parameters as 'outer.inner' -> text; lists as JSON."""
    return {
        key: json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple) else str(value)
        for key, value in flat_params(values).items()
    }


def _is_dirty() -> bool:
    """Whether tracked files differ from the commit, except those that runs write themselves."""
    excluded = (f":(exclude){path}" for path in _WRITTEN_BY_RUNS)
    return bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", *excluded))


def _git(*arguments: str) -> str:
    """Output of git; "" without git, outside a repository or before its first commit."""
    with suppress(UserError):
        return git(*arguments, cwd=Path())
    return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""
