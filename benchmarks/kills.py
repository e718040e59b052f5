"""Kills stages at random moments: `dvc repro` then resumes, repeats no shard and ends with the same bytes.

    python benchmarks/kills.py                      # 20 trials in a clone of this repository, as params.yaml has it
    python benchmarks/kills.py --trials 4 --stages train_maskformer   # the trials of other stages stay in the table

The reference is dvc.lock: what an undisturbed `dvc repro` of the same commit on this machine wrote. Each trial takes
the outputs of one stage away, starts it, kills its whole process group with SIGKILL at a moment drawn evenly from the
time in which it works (not loads), and lets `dvc repro` finish it. Writes reports/benchmarks/kills.json and kills.md,
after every trial.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffground.atomic import write_atomically
from diffground.errors import UserError
from diffground.report.tables import Table
from diffground.reproduction import paths
from diffground.reproduction.lock_file import read_stages, write_stages
from diffground.reproduction.recovery import recover

STAGES = ("generate", "detect", "train_grounding", "synthesize", "train_maskformer")
LOCK = Path("dvc.lock")
MAX_DRAWS = 10
"""Moments drawn for a trial until one comes before the stage's end."""
_SHORTER = 0.75
"""Of the time in which moments are drawn, after one that came too late."""
OUT = Path("reports/benchmarks")


@dataclass(frozen=True)
class Trial:
    stage: str
    moment_s: float
    """When it was killed, seconds after it began to work."""
    of_s: float
    """How long it works undisturbed, from that moment to the end of `dvc repro`."""
    finished_shards: int
    """Complete shards at the kill."""
    redone_shards: int
    """Of these, how many were written again; 0 is right."""
    state_kept: bool
    """Whether a training had left a state to resume from."""
    recovered: bool
    """Whether DVC was killed while it wrote a file of its own, so that `diffground recover` had something to mend."""
    same_bytes: bool
    """Whether all outputs are those of the undisturbed run."""


def run_trials(
    root: Path, *, stages: Sequence[str], num_trials: int, seed: int, environment: Mapping[str, str]
) -> Iterator[Trial]:
    """Trials in the repository `root`, in which `dvc repro` has ended, as they end; the stages take turns.

    Raises: UserError for a stage that dvc.lock does not hold, when an undisturbed run differs from it, and for a stage
    that ends `MAX_DRAWS` times in a row before it is killed.
    """
    draw = random.Random(seed)
    subject = _Subject(root, environment)
    durations = {stage: subject.measure(stage) for stage in stages}
    for i in range(num_trials):
        stage = stages[i % len(stages)]
        trial = _first_hit(subject, stage, draw=draw, of_s=durations[stage])
        print(f"{i + 1}/{num_trials}: {trial}", file=sys.stderr, flush=True)
        yield trial


def _first_hit(subject: _Subject, stage: str, *, draw: random.Random, of_s: float) -> Trial:
    for _ in range(MAX_DRAWS):
        trial = subject.strike(stage, moment_s=draw.uniform(0, of_s), of_s=of_s)
        if trial is not None:
            return trial
        of_s *= _SHORTER  # faster than it was measured, such as on a machine with less to do now
    raise UserError(f"{stage}: ended {MAX_DRAWS} times before it was killed, within {of_s:.2f} s; give it more work")


@dataclass(frozen=True)
class _Subject:
    root: Path
    environment: Mapping[str, str]

    def measure(self, stage: str) -> float:
        """Seconds from the beginning of the work to the end, undisturbed."""
        expected = self._entry(stage)["outs"]
        self._take_away(stage)
        process = self._start(stage)
        self._wait_for_work(stage, process)
        start = time.monotonic()
        output, _ = process.communicate()
        duration = time.monotonic() - start
        self._require_end(stage, process, output)
        if self._entry(stage)["outs"] != expected:
            raise UserError(f"{stage}: an undisturbed run differs from dvc.lock; run `dvc repro` on this machine first")
        return duration

    def strike(self, stage: str, *, moment_s: float, of_s: float) -> Trial | None:
        """None when the stage had ended before it was killed.

        Raises: UserError when it failed by itself or cannot be finished afterwards.
        """
        expected = self._entry(stage)["outs"]
        self._take_away(stage)
        process = self._start(stage)
        self._wait_for_work(stage, process)
        time.sleep(moment_s)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if process.returncode != -signal.SIGKILL:
            self._require_end(stage, process, output)
            return None
        finished = {path: path.stat().st_mtime_ns for out in self._outs(expected) for path in out.glob("*.tar")}
        state_kept = (self.root / paths.UNFINISHED / stage).is_dir()
        recovered = bool(recover(self.root))
        process = self._start(stage)
        output, _ = process.communicate()
        self._require_end(stage, process, output)
        redone = sum(path.stat().st_mtime_ns != made for path, made in finished.items())
        return Trial(
            stage=stage,
            moment_s=round(moment_s, 2),
            of_s=round(of_s, 2),
            finished_shards=len(finished),
            redone_shards=redone,
            state_kept=state_kept,
            recovered=recovered,
            same_bytes=self._entry(stage)["outs"] == expected,
        )

    def _entry(self, stage: str) -> Any:
        entry = read_stages((self.root / LOCK).read_text(encoding="utf-8")).get(stage)
        if entry is None:
            raise UserError(f"{self.root / LOCK}: holds no stage '{stage}'; run `dvc repro` first")
        return entry

    def _outs(self, outs: Sequence[Mapping[str, Any]]) -> list[Path]:
        return [self.root / out["path"] for out in outs]

    def _take_away(self, stage: str) -> None:
        stages = read_stages((self.root / LOCK).read_text(encoding="utf-8"))
        for path in [*self._outs(stages.pop(stage)["outs"]), self.root / paths.UNFINISHED / stage]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        write_stages(self.root / LOCK, stages)

    def _start(self, stage: str) -> subprocess.Popen[str]:
        """In a process group of its own. DVC's run cache would hand out what an earlier trial has made."""
        command = [sys.executable, "-m", "dvc", "repro", "--single-item", "--no-run-cache", stage]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=dict(self.environment),
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def _wait_for_work(self, stage: str, process: subprocess.Popen[str]) -> None:
        """Until the first sign of it: the fingerprint of its shards, or the folder of a training's state."""
        outs = [self.root / out for out in _out_paths(self.root, stage)]
        signs = [self.root / paths.UNFINISHED / stage, *(out / "fingerprint.json" for out in outs)]
        while process.poll() is None and not any(sign.exists() for sign in signs):
            time.sleep(0.002)

    def _require_end(self, stage: str, process: subprocess.Popen[str], output: str) -> None:
        if process.returncode:
            raise UserError(f"`dvc repro {stage}` ended with {process.returncode}:\n{output[-3000:]}")


def _out_paths(root: Path, stage: str) -> list[str]:
    """Of dvc.yaml: dvc.lock has no entry of a stage that is to run."""
    import yaml

    outs = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["outs"]
    return [next(iter(out)) if isinstance(out, dict) else out for out in outs]


def as_table(trials: Sequence[Trial]) -> Table:
    header = (
        "stage",
        "trials",
        "killed after, s",
        "of, s",
        "shards finished",
        "redone",
        "recovered",
        "same bytes",
    )
    rows = []
    for stage in dict.fromkeys(trial.stage for trial in trials):
        mine = [trial for trial in trials if trial.stage == stage]
        moments = ", ".join(f"{trial.moment_s:.1f}" for trial in mine)
        rows.append(
            (
                stage,
                len(mine),
                moments,
                mine[0].of_s,
                sum(trial.finished_shards for trial in mine),
                sum(trial.redone_shards for trial in mine),
                sum(trial.recovered for trial in mine),
                f"{sum(trial.same_bytes for trial in mine)} of {len(mine)}",
            )
        )
    return Table(header=header, rows=tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", "--shared", str(here), str(root)], check=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(root / "src"),
            "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        }
        dvc = [sys.executable, "-m", "dvc"]
        cache = subprocess.run([*dvc, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
        subprocess.run([*dvc, "cache", "dir", "--local", str((here / cache).resolve())], cwd=root, check=True)
        subprocess.run([*dvc, "checkout", "--quiet"], cwd=root, env=environment, check=True)
        trials = [trial for trial in _read_trials() if trial.stage not in arguments.stages]
        for trial in run_trials(
            root, stages=arguments.stages, num_trials=arguments.trials, seed=arguments.seed, environment=environment
        ):
            trials.append(trial)
            _write_trials(sorted(trials, key=lambda trial: STAGES.index(trial.stage)))


def _read_trials() -> list[Trial]:
    file = OUT / "kills.json"
    return [Trial(**trial) for trial in json.loads(file.read_text(encoding="utf-8"))] if file.exists() else []


def _write_trials(trials: Sequence[Trial]) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    write_atomically(OUT / "kills.json", json.dumps([asdict(trial) for trial in trials], indent=2) + "\n")
    write_atomically(OUT / "kills.md", as_table(trials).to_markdown())


if __name__ == "__main__":
    main()
