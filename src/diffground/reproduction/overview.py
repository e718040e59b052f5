"""Progress over all stages of `diffground reproduce`: the stage that runs, the time spent and the time left."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from diffground.atomic import write_atomically
from diffground.reproduction.commands import DVC_TEMPORARY

COMMITTED_TIMES = Path("reports/stage_times.json")
"""Stage -> seconds in the committed reproduction; `diffground verify --record` writes it."""
_TIMES = DVC_TEMPORARY / "diffground" / "stage_times.json"
"""Stage -> seconds in the present reproduction."""
_STARTED = "DIFFGROUND_REPRODUCTION_STARTED"
"""Environment variable: Unix time at which the reproduction began."""


def begin() -> dict[str, str]:
    """Forget the times of an earlier reproduction. Returns: what the environment of the stages needs."""
    _TIMES.unlink(missing_ok=True)
    return {_STARTED: str(time.time())}


def stage_begins(stage: str) -> str | None:
    """The line to print when `stage` begins; None outside of `diffground reproduce`."""
    if _STARTED not in os.environ:
        return None
    elapsed_s = time.time() - float(os.environ[_STARTED])
    return overview(
        stage, stages=stage_names(), elapsed_s=elapsed_s, here=read_times(_TIMES), committed=read_times(COMMITTED_TIMES)
    )


def stage_ended(stage: str, *, time_s: float) -> None:
    """Record the time of a stage that was started by `diffground reproduce`."""
    if _STARTED in os.environ:
        _write(_TIMES, {**read_times(_TIMES), stage: round(time_s, 1)})


def record_times() -> bool:
    """Write the times of a reproduction that ran all stages to COMMITTED_TIMES. Returns: whether there were any."""
    times = read_times(_TIMES)
    if set(times) != set(stage_names()):
        return False
    _write(COMMITTED_TIMES, times)
    return True


def overview(
    stage: str, *, stages: Sequence[str], elapsed_s: float, here: Mapping[str, float], committed: Mapping[str, float]
) -> str:
    """ "stage 3 of 12: generate; 1 min so far, about 17 min left".

    stages: in the order in which they run. here: seconds of the stages that have ended. committed: seconds of all, of
    another run; the ratio of both predicts the rest. Without them nothing is predicted.
    """
    line = f"stage {stages.index(stage) + 1} of {len(stages)}: {stage}; {_minutes(elapsed_s)} so far"
    left = stages[stages.index(stage) :]
    if not set(left) <= set(committed):
        return line
    compared = [name for name in here if name in committed]
    pace = sum(here[name] for name in compared) / sum(committed[name] for name in compared) if compared else 1.0
    left_s = pace * sum(committed[name] for name in left)
    return f"{line}, {'about ' if left_s >= 60 else ''}{_minutes(left_s)} left"


def stage_names() -> list[str]:
    """The stages of dvc.yaml, in its order, which is the one in which they run."""
    return list(yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"])


def read_times(path: Path) -> dict[str, float]:
    """Stage -> seconds; empty without the file."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _write(path: Path, times: Mapping[str, float]) -> None:
    write_atomically(path, json.dumps(times, indent=2) + "\n")


def _minutes(time_s: float) -> str:
    return "less than 1 min" if time_s < 60 else f"{time_s / 60:.0f} min"
