"""Time and memory of stage synthesize at 1, 2, 4 and 8 times the samples, the words per image and the image size.

    python -m benchmarks growth                # profile mini, 5 to 16 minutes; no reproduction is needed

Each point is measured in a process of its own, on one thread, after one batch that does not count: the time of
`synthesize_shards` with a module of random weights, and the peak memory of the process. All points are measured in
turn, several times (`--rounds`). The shortest time counts, since other programs on the machine only make it longer, and
the largest peak. A line through an axis' points (least squares of the relative errors) gives the slope; the largest
deviation is a share of the line's value. Images grow by their side, and their time is fitted over the number of pixels.
The line for words starts at two per image: a single word needs no passes for the denoising gain. Memory must not grow
with the samples: otherwise the benchmark ends with exit code 1. Writes reports/benchmarks/growth.json and growth.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._record import OUT, in_words, machine, peak_mib, write
from benchmarks.speed import fresh_grounder, load_generator
from diffground.grounding.synthesize import synthesize_shards
from diffground.prompts import PromptRecord
from diffground.report.tables import Row, Table
from diffground.reproduction.config import Params, load_params
from diffground.runtime.device import setup_torch
from diffground.vocabulary import Vocabulary, photograph_of

MULTIPLES = (1, 2, 4, 8)
BATCH_SIZE, SHARD_SIZE = 8, 16
NUM_WORDS = 2
"""Per image, where something else grows."""
MAX_MEMORY_GROWTH_MIB = 48
"""Of the peak at the most samples over that at the fewest. On a busy machine, peaks of equal work differ by up to 40
MiB; the features and images of 112 more samples would take 70."""


@dataclass(frozen=True)
class Point:
    """What is synthesized."""

    num_samples: int
    num_words: int
    """Per image."""
    image_size: int
    """px."""


@dataclass(frozen=True)
class Measured:
    time_s: float
    peak_mib: float


def axes(base: Point, *, largest_image: int, multiples: Sequence[int]) -> dict[str, list[Point]]:
    """What grows -> its points; the rest stays as in `base`. Words grow from one per image, images up to
    `largest_image` pixels per side, in one batch: the largest take seconds each.
    """
    smallest = largest_image // max(multiples)
    return {
        "samples": [Point(base.num_samples * m, base.num_words, base.image_size) for m in multiples],
        "words per image": [Point(base.num_samples, m, base.image_size) for m in multiples],
        "image size": [Point(BATCH_SIZE, base.num_words, smallest * m) for m in multiples],
    }


def size_of(axis: str, point: Point) -> float:
    """What the time is fitted over: samples, words or pixels of all images."""
    each = {"samples": 1, "words per image": point.num_words, "image size": point.image_size**2}
    return point.num_samples * each[axis]


def run_point(params: Params, point: Point) -> Measured:
    """Synthesize in this process. Raises: UserError for an image size that the generator cannot make and for words that
    do not fit into a prompt."""
    p = params.generator
    generator = load_generator(params, image_size=point.image_size)
    grounder = fresh_grounder(generator, params, p.sampling)
    vocabulary = params.vocabulary.load()

    def synthesize(records: Sequence[PromptRecord], out_dir: Path) -> None:
        synthesize_shards(
            records,
            out_dir=out_dir,
            generator=generator,
            grounder=grounder,
            grounder_id="benchmark",
            vocabulary=vocabulary,
            sampling=p.sampling,
            mask_threshold=params.grounding.mask_threshold,
            batch_size=BATCH_SIZE,
            shard_size=SHARD_SIZE,
        )

    records = list(make_records(vocabulary, point))
    with tempfile.TemporaryDirectory() as folder:
        synthesize(records[:BATCH_SIZE], Path(folder) / "first")
        start_s = time.perf_counter()
        synthesize(records, Path(folder) / "all")
        return Measured(time_s=time.perf_counter() - start_s, peak_mib=peak_mib())


def make_records(vocabulary: Vocabulary, point: Point) -> Iterator[PromptRecord]:
    """Prompts that name `num_words` categories each, of all in turn."""
    names = vocabulary.categories
    for i in range(point.num_samples):
        categories = tuple(names[(i + k) % len(names)] for k in range(point.num_words))
        yield PromptRecord(
            id=f"synthesis-{i:06d}",
            prompt=photograph_of(*(vocabulary.phrases[category] for category in categories)),
            categories=categories,
            group="two_seen",
            seed=i,
            source="template",
        )


def in_a_process(point: Point) -> Measured:
    """run_point with params.yaml, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "growth", "--point", *map(str, asdict(point).values())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def fit_line(sizes: Sequence[float], times_s: Sequence[float]) -> tuple[float, float]:
    """The slope of the line with the least relative errors, s per unit of size, and the largest error, percent."""
    sizes_, times = np.asarray(sizes, dtype=np.float64), np.asarray(times_s, dtype=np.float64)
    slope, start = np.polyfit(sizes_, times, 1, w=1 / times)
    line = slope * sizes_ + start
    return float(slope), float(100 * np.abs(times / line - 1).max())


def best_of(rounds: Sequence[Measured]) -> Measured:
    """Of one point: the shortest time and the largest peak."""
    return Measured(time_s=min(of.time_s for of in rounds), peak_mib=max(of.peak_mib for of in rounds))


def summarise(axis: str, points: Sequence[Point], measured: Sequence[Measured]) -> dict[str, Any]:
    """What the JSON holds of an axis."""
    first = 1 if axis == "words per image" and points[0].num_words == 1 else 0
    sizes, times = [size_of(axis, point) for point in points], [found.time_s for found in measured]
    slope, deviation = fit_line(sizes[first:], times[first:])
    return {
        "points": [asdict(point) for point in points],
        "times_s": [round(found.time_s, 3) for found in measured],
        "peaks_mib": [round(found.peak_mib, 1) for found in measured],
        "slope_ms": 1000 * slope,
        "deviation_percent": round(deviation, 2),
        "memory_growth_mib": round(measured[-1].peak_mib - measured[0].peak_mib, 1),
    }


def as_table(found: dict[str, dict[str, Any]], multiples: Sequence[int]) -> Table:
    slopes = {
        "samples": lambda ms: f"{ms:.1f} ms per sample",
        "words per image": lambda ms: f"{ms:.1f} ms per word of an image",
        "image size": lambda ms: f"{1000 * ms:.2f} ms per 1000 pixels",
    }
    ends = {
        "samples": lambda points: f"{points[0]['num_samples']} to {points[-1]['num_samples']}",
        "words per image": lambda points: f"{points[0]['num_words']} to {points[-1]['num_words']}",
        "image size": lambda points: f"{points[0]['image_size']} to {points[-1]['image_size']} px per side",
    }
    rows: list[Row] = [
        (
            f"{axis}, {ends[axis](of['points'])}",
            *(f"{time_s:.2f}" for time_s in of["times_s"]),
            slopes[axis](of["slope_ms"]),
            f"{of['deviation_percent']:.1f}",
            ", ".join(f"{peak:.0f}" for peak in of["peaks_mib"]),
        )
        for axis, of in found.items()
    ]
    header = (
        "what grows",
        *(f"{multiple} ×, s" for multiple in multiples),
        "slope",
        "largest deviation from a line, %",
        "peak memory, MiB",
    )
    return Table(header=header, rows=tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=16, help="the fewest")
    parser.add_argument("--largest-image", type=int, default=256, help="px per side")
    parser.add_argument("--multiples", type=int, nargs="+", default=MULTIPLES)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each point")
    parser.add_argument("--out", type=Path, default=OUT / "growth")
    parser.add_argument("--point", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    setup_torch(num_threads=1)
    params = load_params()
    if arguments.point:
        print(json.dumps(asdict(run_point(params, Point(*arguments.point)))))
        return
    base = Point(arguments.samples, NUM_WORDS, params.generator.image_size)
    of_axes = axes(base, largest_image=arguments.largest_image, multiples=arguments.multiples)
    measured: dict[Point, list[Measured]] = {point: [] for points in of_axes.values() for point in points}
    for _ in range(arguments.rounds):
        for point, rounds in measured.items():
            rounds.append(in_a_process(point))
    found = {
        axis: summarise(axis, points, [best_of(measured[point]) for point in points])
        for axis, points in of_axes.items()
    }
    this = machine(num_threads=1)
    results = {"machine": this, "batch_size": BATCH_SIZE, "rounds": arguments.rounds, "axes": found}
    text = (
        f"Stage synthesize of profile {params.profile}, in one process; the shortest of {arguments.rounds} times. "
        f"{in_words(this)}"
    )
    write(arguments.out, results, as_table(found, arguments.multiples), text=text)
    print(as_table(found, arguments.multiples).to_markdown())
    growth = found["samples"]["memory_growth_mib"]
    if growth > MAX_MEMORY_GROWTH_MIB:
        print(f"error: memory grew by {growth} MiB with the samples, at most {MAX_MEMORY_GROWTH_MIB}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
