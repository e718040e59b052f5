"""What the runtime costs at scale: prompt file -> records -> shards, with a generator that only draws noise.

    python benchmarks/scale.py                              # 1k, 10k, 100k and 228k prompts: about ten minutes
    python benchmarks/scale.py --sizes 1000 --backend ray --out scale-ray

For each size, each in a process of its own: the reference (the same samples drawn, encoded and written with plain
`tarfile`, one shard after another), the run (`PromptFile`, `generate_shards` with workers), and a restart on the
finished set, which writes nothing. Bars: 2 ms a sample, 30 s for the restart of 228k, memory that does not grow.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from diffground.data.labelled import image_sample
from diffground.data.shards import count_samples, list_shards
from diffground.diffusion.generate import generate_shards
from diffground.diffusion.generator import Generator, Samples
from diffground.diffusion.sampling import Sampling
from diffground.prompts import PromptFile, PromptRecord, read_prompts, write_prompts
from diffground.reproduction.config import load_params
from diffground.runtime.backend import make_workers
from diffground.runtime.config import RuntimeConfig
from diffground.runtime.workers import Advance

SIZES = (1_000, 10_000, 100_000, 228_000)
BATCH_SIZE, SHARD_SIZE, IMAGE_SIZE = 32, 256, 16
SETTINGS: dict[str, Any] = {"sampling": Sampling(50, 5.0, 1)}
CATEGORIES = ("dog", "car", "potted plant", "tv monitor")


@dataclass(frozen=True)
class NoiseGenerator:
    """Stands for a Generator: images and latents of noise, in no time. Notes the peak memory and
    the CPU time of its process in `memory_dir`."""

    memory_dir: Path
    generator_id: str = "noise"
    image_size: int = IMAGE_SIZE
    dtype: torch.dtype = torch.float32

    def timestep(self, sampling: Sampling) -> int:
        return sampling.tapped_step

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> Samples:
        noise = [np.random.default_rng(seed).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 4), np.uint8) for seed in seeds]
        with (self.memory_dir / str(os.getpid())).open("a") as file:
            print(peak_mb(), time.process_time(), file=file)
        images = np.stack(noise)
        return Samples(
            images=np.ascontiguousarray(images[..., :3]),
            latents=torch.from_numpy(images[:, :8, :8].astype(np.float32)).permute(0, 3, 1, 2),
            timestep=1,
        )


def nothing(item: int, advance: Advance) -> None:
    pass


def peak_mb() -> float:
    """Of this process alone: getrusage counts that of the process which started it, too."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def records(num: int) -> Iterator[PromptRecord]:
    for i in range(num):
        named = (CATEGORIES[i % 4], CATEGORIES[(i + 1) % 4])
        yield PromptRecord(
            id=f"synthesis-{i:06d}",
            prompt=f"a photograph of a {named[0]} and a {named[1]} on the grass",
            categories=named,
            group="two_seen",
            seed=i,
            source="scene",
        )


def measure_reference(folder: Path) -> dict[str, float]:
    generator, all_records = NoiseGenerator(folder / "memory"), read_prompts(folder / "prompts.jsonl")
    out = folder / "reference"
    out.mkdir()
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for number, first in enumerate(range(0, len(all_records), SHARD_SIZE)):
        shard = all_records[first : first + SHARD_SIZE]
        with tarfile.open(out / f"{number:06d}.tar", "w") as archive:
            for start in range(0, len(shard), BATCH_SIZE):
                batch = shard[start : start + BATCH_SIZE]
                samples = generator.sample([r.prompt for r in batch], [r.seed for r in batch], SETTINGS["sampling"])
                for record, image, latent in zip(batch, samples.images, samples.latents.numpy(), strict=True):
                    sample = image_sample(
                        **record.to_json(),
                        settings=asdict(SETTINGS["sampling"]),
                        image=image,
                        latent=latent.astype(np.float16),
                    )
                    for name, content in sample.members.items():
                        info = tarfile.TarInfo(f"{record.id}.{name}")
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))
    return {"time_s": time.perf_counter() - start_s, "cpu_s": time.process_time() - start_cpu_s}


def runtime_of(*, workers: int, backend: Literal["local", "ray"]) -> RuntimeConfig:
    """This repository's, with a thread for each of the workers on the CPU; with Ray on this machine alone."""
    runtime = load_params(Path(__file__).parents[1] / "params.yaml").runtime
    return replace(runtime, device="cpu", num_threads=workers, num_workers=workers, backend=backend, ray_address="")


def measure_run(folder: Path, *, workers: int, backend: Literal["local", "ray"]) -> dict[str, float]:
    memory_dir = folder / f"memory-{os.getpid()}"
    memory_dir.mkdir()
    runtime = runtime_of(workers=workers, backend=backend)
    imported_mb, start_s = peak_mb(), time.perf_counter()
    with make_workers(runtime, torch.device("cpu")) as started:
        if not (folder / "shards").exists():
            list(started.map(nothing, range(workers)))
        workers_start_s = time.perf_counter() - start_s
        start_cpu_s = time.process_time()
        all_records = PromptFile(folder / "prompts.jsonl")
        num_shards = generate_shards(
            all_records,
            out_dir=folder / "shards",
            generator=cast(Generator, NoiseGenerator(memory_dir)),
            batch_size=BATCH_SIZE,
            shard_size=SHARD_SIZE,
            workers=started,
            **SETTINGS,
        )
        time_s = time.perf_counter() - start_s - workers_start_s
    cpu_s, peaks_mb = time.process_time() - start_cpu_s, [0.0]
    for path in memory_dir.iterdir():
        notes = np.loadtxt(path, ndmin=2)  # (batches, 2): peak in MB, CPU seconds so far
        if path.name != str(os.getpid()):
            peaks_mb.append(notes[-1, 0])
            cpu_s += notes[-1, 1] - notes[0, 1]  # all but the first batch
    return {
        "num_shards_written": num_shards,
        "time_s": time_s,
        "cpu_s": cpu_s,
        "workers_start_s": workers_start_s,
        "parent_peak_mb": peak_mb(),
        "parent_imported_mb": imported_mb,
        "worker_peak_mb": max(peaks_mb),
    }


def measure(num: int, *, workers: int, backend: str) -> dict[str, float]:
    """All figures of one size, from processes of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "memory").mkdir()
        write_prompts(folder / "prompts.jsonl", records(num))
        call = [sys.executable, __file__, "--folder", name, "--workers", str(workers), "--backend", backend, "--part"]
        reference, run, restart = (
            json.loads(subprocess.run([*call, part], stdout=subprocess.PIPE, check=True, text=True).stdout)
            for part in ("reference", "run", "run")
        )
        assert sum(map(count_samples, list_shards(folder / "shards"))) == num
        assert run["num_shards_written"] == -(-num // SHARD_SIZE) and restart["num_shards_written"] == 0
        return {
            "num_prompts": num,
            "ms_per_sample": 1000 * run["time_s"] / num,
            "cpu_ms_per_sample": 1000 * run["cpu_s"] / num,
            "reference_ms_per_sample": 1000 * reference["time_s"] / num,
            "reference_cpu_ms_per_sample": 1000 * reference["cpu_s"] / num,
            "cpu_ratio_to_reference": run["cpu_s"] / reference["cpu_s"],
            "workers_start_s": run["workers_start_s"],
            "restart_s": restart["time_s"],
            "restart_cpu_s": restart["cpu_s"],
            "parent_imported_mb": run["parent_imported_mb"],
            "parent_peak_mb": run["parent_peak_mb"],
            "restart_peak_mb": restart["parent_peak_mb"],
            "worker_peak_mb": run["worker_peak_mb"],
        }


def to_markdown(rows: Sequence[dict[str, float]], setting: dict[str, Any]) -> str:
    columns = {
        "prompts": "{num_prompts:,}",
        "ms a sample (CPU)": "{ms_per_sample:.2f} ({cpu_ms_per_sample:.2f})",
        "plain tarfile (CPU)": "{reference_ms_per_sample:.2f} ({reference_cpu_ms_per_sample:.2f})",
        "CPU ratio": "{cpu_ratio_to_reference:.2f}",
        "restart when finished, s (CPU)": "{restart_s:.1f} ({restart_cpu_s:.1f})",
        "imports alone, MB": "{parent_imported_mb:.0f}",
        "parent's peak, MB": "{parent_peak_mb:.0f}",
        "a worker's peak, MB": "{worker_peak_mb:.0f}",
    }
    lines = [
        f"Backend {setting['backend']}, {setting['workers']} workers, {setting['shard_size']} samples a shard, "
        f"{setting['cores']} core(s). Made by `python benchmarks/scale.py`, which says what is measured.\n",
        f"| {' | '.join(columns)} |",
        f"| {' | '.join(['---:'] * len(columns))} |",
        *(f"| {' | '.join(cell.format(**row) for cell in columns.values())} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backend", choices=("local", "ray"), default="local")
    parser.add_argument("--out", type=Path, default=Path("reports/benchmarks"))
    parser.add_argument("--part", choices=("reference", "run"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        part = (
            measure_reference(args.folder)
            if args.part == "reference"
            else measure_run(args.folder, workers=args.workers, backend=args.backend)
        )
        print(json.dumps(part))
        return
    setting = {
        "workers": args.workers,
        "backend": args.backend,
        "shard_size": SHARD_SIZE,
        "cores": len(os.sched_getaffinity(0)),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, float]] = []
    for num in args.sizes:
        rows.append(measure(num, workers=args.workers, backend=args.backend))
        (args.out / "scale.json").write_text(json.dumps({"setting": setting, "sizes": rows}, indent=2) + "\n")
        (args.out / "scale.md").write_text(to_markdown(rows, setting))
    print(to_markdown(rows, setting))


if __name__ == "__main__":
    main()
