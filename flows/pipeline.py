"""What DVC says of a pipeline: its stages in the order in which it runs them, which are out of date, how one ended."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diffground.entry_point import TEMPORARY_FAILURE
from diffground.reproduction.commands import DVC, output_of
from diffground.reproduction.recovery import recover
from flows.places import command_environment

_FAILED = re.compile(r"^ERROR: failed to reproduce '[^']*': failed to run: .*, exited with (-?\d+)$")
_SKIPPED = re.compile(r"^(Stage '[^']*' (didn't change|is cached)|Data and pipelines are up to date)")
_KILLED = 137


@dataclass(frozen=True)
class Pipeline:
    """The dvc.yaml of `folder`."""

    folder: Path
    upstream: Mapping[str, tuple[str, ...]]
    """Stage -> stages that it depends on directly. The keys are in the order in which DVC runs them."""
    outputs: Mapping[str, tuple[Path, ...]]
    """Stage -> files and folders that it writes, relative to `folder`."""
    frozen: frozenset[str]

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(self.upstream)

    def between(self, first: str | None, last: str | None) -> list[str]:
        """Stages that `last` needs, itself included, from `first` on; None is no limit."""
        needed = set(self.stages) if last is None else {last}
        for stage in reversed(self.stages):
            if stage in needed:
                needed.update(self.upstream[stage])
        start = 0 if first is None else self.stages.index(first)
        return [stage for stage in self.stages[start:] if stage in needed]


def read_pipeline(folder: Path) -> Pipeline:
    """Read dvc.yaml with DVC's own code, after putting back a dvc.lock that it was killed over."""
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro

    recover(folder)
    repo = Repo(str(folder))
    try:
        graph = repo.index.graph  # an edge leads from a stage to one that it depends on
        plan = [stage for stage in plan_repro(graph) if getattr(stage, "name", None)]
        return Pipeline(
            folder=folder,
            upstream={stage.name: tuple(dep.name for dep in plan if dep in graph[stage]) for stage in plan},
            outputs={
                stage.name: tuple(Path(os.path.relpath(out.fs_path, folder)) for out in stage.outs) for stage in plan
            },
            frozen=frozenset(stage.name for stage in plan if stage.frozen),
        )
    finally:
        repo.close()


def changed_stages(folder: Path) -> set[str]:
    """Stages that DVC would run, as things are. Raises: UserError, one line, when DVC refuses."""
    text = output_of([*DVC, "status", "--json"], cwd=folder, env=command_environment())
    return set(json.loads(text or "{}"))


def repro_command(stage: str) -> list[str]:
    """Runs `stage` alone, if it is out of date."""
    return [*DVC, "repro", "--single-item", stage]


@contextmanager
def unfrozen(folder: Path, stages: Sequence[str]) -> Iterator[None]:
    """Unfreeze stages for `dvc repro` within the block; afterwards they are frozen again."""
    if not stages:
        yield
        return
    path = folder / "dvc.yaml"
    before = after = path.read_bytes()
    try:
        output_of([*DVC, "unfreeze", "--quiet", *stages], cwd=folder, env=command_environment())
        after = path.read_bytes()
        yield
    finally:
        if path.read_bytes() in (before, after):
            path.write_bytes(before)
        else:  # edited in the meantime
            output_of([*DVC, "freeze", "--quiet", *stages], cwd=folder, env=command_environment())


class Outcome:
    """How the stages of one `dvc repro` ended, from its exit code and the lines that it printed."""

    def __init__(self) -> None:
        self._stage_code: int | None = None
        self.last_error = ""
        self.skipped = False
        """Whether DVC had nothing to run."""

    def read(self, line: str) -> None:
        if found := _FAILED.match(line):
            self._stage_code = int(found[1])
        elif self._stage_code is None and line.lower().startswith("error: "):
            self.last_error = line.partition(" ")[2]
        self.skipped = self.skipped or _SKIPPED.match(line) is not None

    def exit_code(self, code: int) -> int:
        """Exit code of the stage if the stage failed; `code` is that of `dvc repro`. 128 + N for signal N.

        The shell between DVC and a killed stage returns -N or 128 + N.
        """
        own = code if self._stage_code is None or code == 0 else self._stage_code
        return own if own >= 0 else 128 - own

    def is_temporary(self, code: int) -> bool:
        """Whether a retry may succeed: out of memory, a lost worker, a killed process."""
        return self.exit_code(code) in (TEMPORARY_FAILURE, _KILLED)
