"""The common part of all stage scripts: parameters, tracking run, one-line errors.

A stage file is started from the repository root as `python stages/generate.py` and reads

    from _stage import Params, TrackingRun, run_stage

    def main(params: Params, run: TrackingRun) -> None:
        device = setup(params.runtime)      # diffground.runtime.device, where torch is used
        ...

    if __name__ == "__main__":
        run_stage("generate", main)

Paths are constants of diffground.reproduction.paths. `main` raises UserError for errors that the user can fix.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from diffground.entry_point import log_to_stderr, run_entry_point
from diffground.errors import UserError
from diffground.reproduction import paths
from diffground.reproduction.config import Params, load_params
from diffground.reproduction.overview import stage_begins, stage_ended
from diffground.reproduction.recovery import keep_copy
from diffground.runtime.config import RuntimeConfig
from diffground.runtime.fork_server import start_fork_server
from diffground.runtime.imports import imported_names
from diffground.runtime.instruction_set import limit_instruction_set
from diffground.runtime.openmp import wait_briefly
from diffground.runtime.rank import is_main_process, is_one_of_several
from diffground.tracking import TrackingRun, start_run


def _prepare(runtime: RuntimeConfig) -> None:
    """What must come before the imports of the stage script: it imports this module first, and torch after it."""
    wait_briefly()
    limit_instruction_set(runtime.instruction_set)
    script = getattr(sys.modules["__main__"], "__file__", None)  # None in a worker, which imports the script too
    if script is None or runtime.backend != "local" or runtime.num_workers == 1:
        return
    imported = set(imported_names(Path(script), "__main__"))
    if {"diffground.runtime.backend", "diffground.runtime.workers"} & imported:
        imported |= set(imported_names(Path(__file__), "_stage"))
        start_fork_server(sorted(name for name in imported if name.startswith("diffground.")))


with suppress(UserError):  # run_stage reports what is wrong with params.yaml
    _prepare(load_params(paths.PARAMS).runtime)

Main = Callable[[Params, TrackingRun], None]


def run_stage(name: str, main: Main, *, num_processes: Callable[[Params], int] | None = None) -> None:
    """Read params.yaml, open the tracking run, call `main`; exit with 2 and one line on stderr for a UserError.

    num_processes: in how many processes `main` runs, of which only the main one writes and logs, unless `accelerate
    launch` has started this one among several; None: always in this one.
    """

    def action() -> None:
        params = load_params(paths.PARAMS)
        start_s = time.time()
        if is_main_process() and (line := stage_begins(name)):
            print(line, file=sys.stderr, flush=True)
        num = 1 if num_processes is None or is_one_of_several() else num_processes(params)
        if num == 1:
            _run(name, main, params)
        else:
            from diffground.runtime.processes import run_in_processes

            run_in_processes(num, _take_part, name, main, params, num)
        if is_main_process():
            stage_ended(name, time_s=time.time() - start_s)

    sys.exit(run_entry_point(action, resume_with=f"dvc repro {name}"))


def _run(name: str, main: Main, params: Params) -> None:
    if is_main_process():
        keep_copy()
    with start_run(name, params) as run:
        main(params, run)


def _take_part(name: str, main: Main, params: Params, num: int) -> None:
    """Run in each of `num` processes."""
    num_threads = max(1, params.runtime.num_threads // num)
    os.environ["OMP_NUM_THREADS"] = str(num_threads)  # otherwise accelerate would choose
    with log_to_stderr():
        _run(name, main, replace(params, runtime=replace(params.runtime, num_threads=num_threads)))
