"""What the stages add to the networks they run and to the bytes they move, each against a reference of the same run.

    python -m benchmarks stages                # profile mini, two minutes; no reproduction is needed
    python -m benchmarks stages --repository DIR    # DIR: a clone after `dvc repro`, for its run with nothing to do

- detect against the detector's forward passes on the same images;
- a training of the segmenter, the whole loop, against forward, backward and optimizer step on the same batches;
- the evaluations against the forward passes of their networks;
- a shard, written and read, against a copy of the file;
- `dvc repro` with nothing to do, in seconds.

All on images that are sampled first, in one process and on one thread, in turn; medians are compared. Writes
reports/benchmarks/stages.json and stages.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._record import OUT, in_words, machine, write
from benchmarks._stage_cases import Case, detect_case, protocol1_case, segmenter_case, shard_cases, zs3_case
from benchmarks._stage_subject import make_subject
from benchmarks.speed import median_times
from diffground.errors import in_one_line
from diffground.report.tables import Row, Table
from diffground.reproduction.config import Params, load_params
from diffground.runtime.device import setup_torch

REFERENCE = "reference of "
NO_OP = "`dvc repro` with nothing to do"
UP_TO_DATE = "Data and pipelines are up to date"


def all_cases(params: Params, folder: Path, *, num_images: int, num_steps: int, num_bytes: int) -> list[Case]:
    """Every case, on data that is made in `folder`."""
    subject = make_subject(params, folder, num_images=num_images)
    return [
        detect_case(subject),
        segmenter_case(subject, num_steps=num_steps),
        protocol1_case(subject),
        zs3_case(subject),
        *shard_cases(subject, num_bytes=num_bytes),
    ]


def measure(cases: Sequence[Case], *, repeats: int) -> list[dict[str, Any]]:
    """Seconds of each case and of its reference, and their ratio."""
    turns: dict[str, Callable[[], object]] = {}
    for case in cases:
        turns |= {case.name: case.ours, REFERENCE + case.name: case.bare}
    times = median_times(turns, repeats=repeats)
    return [
        {
            "name": case.name,
            "reference": case.reference,
            "time_s": round(times[case.name], 4),
            "reference_s": round(times[REFERENCE + case.name], 4),
            "ratio": round(times[case.name] / times[REFERENCE + case.name], 3),
        }
        for case in cases
    ]


def no_op_repro(repository: Path, *, repeats: int) -> tuple[float | None, str]:
    """Median seconds of `dvc repro` in a repository where it has nothing to do, or None and the reason.

    Nothing is run where a stage would be.
    """
    environment = {**os.environ, "PYTHONPATH": str(repository.resolve() / "src")}
    command = [sys.executable, "-m", "dvc", "repro"]

    def run(*options: str) -> str | None:
        """Why it was not a run with nothing to do; None if it was."""
        done = subprocess.run(
            [*command, *options], cwd=repository, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return f"dvc repro failed: {in_one_line(done.stderr.strip().rpartition(chr(10))[2])}"
        return None if UP_TO_DATE in done.stdout + done.stderr else "a stage is to run; give a clone after `dvc repro`"

    if reason := run("--dry"):
        return None, reason
    times = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        if reason := run():
            return None, reason
        times.append(time.perf_counter() - start_s)
    return statistics.median(times), ""


def as_table(cases: Sequence[Mapping[str, Any]], no_op_s: float | None) -> Table:
    rows: list[Row] = [
        (
            case["name"],
            f"{case['time_s']:.2f}",
            case["reference"],
            f"{case['reference_s']:.2f}",
            f"{case['ratio']:.2f}",
        )
        for case in cases
    ]
    rows.append((NO_OP, "not measured" if no_op_s is None else f"{no_op_s:.1f}", "–", "–", "–"))
    return Table(header=("stage", "s", "reference", "reference, s", "ratio"), rows=tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path(), help="where `dvc repro` has nothing to do")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--steps", type=int, default=12, help="of the segmenter's training")
    parser.add_argument("--mib", type=int, default=64, help="size of the shard")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT / "stages")
    arguments = parser.parse_args()
    setup_torch(num_threads=1)
    no_op_s, reason = no_op_repro(arguments.repository, repeats=3)
    if reason:
        print(f"{NO_OP}: not measured: {reason}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        cases = all_cases(
            load_params(),
            Path(folder),
            num_images=arguments.images,
            num_steps=arguments.steps,
            num_bytes=arguments.mib * 2**20,
        )
        found = measure(cases, repeats=arguments.repeats)
    results = {
        "machine": machine(num_threads=1),
        "num_images": arguments.images,
        "num_steps": arguments.steps,
        "shard_mib": arguments.mib,
        "repeats": arguments.repeats,
        "cases": found,
        "no_op_repro_s": None if no_op_s is None else round(no_op_s, 2),
    }
    text = (
        f"{arguments.images} images, {arguments.steps} training steps, a shard of {arguments.mib} MiB, in one process. "
        f"{in_words(results['machine'])}"
    )
    table = as_table(found, no_op_s)
    write(arguments.out, results, table, text=text)
    print(table.to_markdown())


if __name__ == "__main__":
    main()
