"""What every stage script shares: its parameters, its tracking run, one-line errors.

A stage file is started from the repository root as `python stages/generate.py` and reads

    from _stage import run_stage

    def main(params: Params, run: TrackingRun) -> None:
        device = setup(params.runtime)      # diffground.runtime.device, where torch is used
        ...

    if __name__ == "__main__":
        run_stage("generate", main)

Paths are constants of diffground.paths. `main` raises UserError for what the user can mend.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from diffground import paths
from diffground.config import Params, load_params
from diffground.entry_point import run_entry_point
from diffground.tracking import TrackingRun, start_run


def run_stage(name: str, main: Callable[[Params, TrackingRun], None]) -> None:
    """Read params.yaml, open the tracking run, call `main`; exit with 2 and one line on stderr for a UserError."""

    def action() -> None:
        params = load_params(paths.PARAMS)
        with start_run(name, params) as run:
            main(params, run)

    sys.exit(run_entry_point(action, resume_with=f"dvc repro {name}"))
