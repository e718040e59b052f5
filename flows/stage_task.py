"""One Prefect task per DVC stage. DVC decides whether a stage has to run; Prefect retries temporary failures."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from diffground.errors import InfrastructureError, UserError
from flows.artifacts import stage_page
from flows.gpus import gpu_slot, visible_gpus
from flows.pipeline import Outcome, Pipeline, changed_stages, repro_command
from flows.places import ROOT, command_environment
from flows.process import Commands

UP_TO_DATE = "UpToDate"
"""Name of the completed state of a stage that did not have to run."""

_HINT = re.compile(r"To track the changes with git|\tgit add|To enable auto staging|\tdvc config|Use `dvc push`")
_PROGRESS = re.compile(r"^(?P<what>[^:]+): (?P<done>\d+)/(?P<total>\d+), .* left$")


def is_temporary(task: Any, run: Any, state: State) -> bool:
    """Whether Prefect may retry: the machine failed, not the input."""
    return isinstance(state.result(raise_on_failure=False), InfrastructureError)


@task(
    name="stage",
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retry_condition_fn=is_temporary,
)
def run_stage(stage: str, folder: Path, *, outputs: Sequence[Path], stale: bool) -> State:
    """`dvc repro --single-item` of a stage that may be out of date; nothing for one that is up to date.

    Raises: InfrastructureError if a retry may succeed, else UserError.
    """
    if not stale:
        get_run_logger().info("up to date")
        return Completed(name=UP_TO_DATE, message="up to date")
    start_s = time.time()
    outcome, on_line = line_reader(stage)
    with gpu_slot(needed=needs_gpu(stage)):
        code = Commands().run(repro_command(stage), cwd=folder, env=command_environment(), on_line=on_line)
    if code:
        raise failure(f"stage '{stage}'", outcome, code)
    if outcome.skipped:
        return Completed(name=UP_TO_DATE, message="up to date: DVC found nothing to run")
    relative = [Path(os.path.relpath(folder / path, ROOT)) for path in outputs]
    page = stage_page(stage, outputs=relative, since_s=start_s)
    with _server_may_be_away():
        create_markdown_artifact(key=artifact_key(stage), markdown=page, description=f"Outputs of stage {stage}")
    return Completed(message=f"ran for {time.time() - start_s:.0f} s")


def run_stages(pipeline: Pipeline, stages: Sequence[str], *, retries: int, retry_delay_s: float) -> None:
    """Run the `stages` that are out of date or depend on one that ran, one after another.

    Raises: the error of the first stage that fails.
    """
    changed = changed_stages(pipeline.folder)
    attempt = run_stage.with_options(retries=retries, retry_delay_seconds=retry_delay_s)
    states: dict[str, State] = {}
    for stage in stages:
        before = [states[name] for name in pipeline.upstream[stage] if name in states]
        follows = stage not in pipeline.frozen and any(state.name != UP_TO_DATE for state in before)
        states[stage] = attempt(
            stage,
            pipeline.folder,
            outputs=pipeline.outputs[stage],
            stale=stage in changed or follows,
            wait_for=before,
            return_state=True,
        )
        if states[stage].is_failed():
            states[stage].result()


def line_reader(name: str) -> tuple[Outcome, Callable[[str], None]]:
    """A function that logs the lines of a command and updates progress artifacts, and the Outcome that it fills."""
    logger, outcome, progress = get_run_logger(), Outcome(), StageProgress(name)

    def on_line(line: str) -> None:
        if line and not _HINT.match(line):
            logger.info(line)
        outcome.read(line)
        progress.read(line)

    return outcome, on_line


def failure(what: str, outcome: Outcome, code: int) -> UserError:
    """The error for a command that ended with an exit code other than 0."""
    kind = InfrastructureError if outcome.is_temporary(code) else UserError
    reason = outcome.last_error or "see its log"
    return kind(f"{what} ended with exit code {outcome.exit_code(code)}: {reason}")


def needs_gpu(stage: str) -> bool:
    """Whether there are GPUs and the stage uses one. A training of pretrain/ always does."""
    script = ROOT / "stages" / f"{stage}.py"
    computes = not script.is_file() or "diffground.runtime.device" in script.read_text(encoding="utf-8")
    return computes and bool(visible_gpus())


def artifact_key(name: str) -> str:
    """Prefect accepts lower-case letters, digits and dashes only."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class StageProgress:
    """A progress artifact for every loop of a stage that reports progress before its end (runtime/progress.py)."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._artifacts: dict[str, UUID] = {}

    def read(self, line: str) -> None:
        found = _PROGRESS.match(line)
        if not found:
            return
        what, done, total = found["what"], int(found["done"]), max(int(found["total"]), 1)
        percent = min(100.0 * done / total, 100.0)
        with _server_may_be_away():
            if what in self._artifacts:
                update_progress_artifact(self._artifacts[what], progress=percent, description=line)
            elif done < total:
                key = artifact_key(f"progress {self._stage} {what}")
                created = create_progress_artifact(progress=percent, key=key, description=line)
                self._artifacts[what] = UUID(str(created))


@contextmanager
def _server_may_be_away() -> Iterator[None]:
    """A missing artifact must not end a stage."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning("no artifact: %s", " ".join(str(error).split())[:200])
