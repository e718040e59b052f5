"""What the runtime costs at scale: prompt file -> records -> shards, with a generator that only draws noise.

    python benchmarks/scale.py                              # 1k, 10k, 100k and 228k prompts: about ten minutes
    python benchmarks/scale.py --sizes 1000 --backend ray --out /tmp/scale

For each size, each in a process of its own: the reference (the same samples drawn, encoded and written with plain
`tarfile`, one shard after another), the run (`read_prompts`, `generate_shards` with workers), and a restart on the
finished set, which writes nothing. Bars: 2 ms a sample, 30 s for the restart of 228k, memory that does not grow.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from diffground.config import RuntimeConfig
from diffground.data.shards import encode_array, encode_json, encode_png
from diffground.diffusion.generate import generate_shards
from diffground.diffusion.generator import Generator, Samples
from diffground.prompts import PromptRecord, read_prompts, write_prompts
from diffground.runtime.workers import Workers

SIZES = (1_000, 10_000, 100_000, 228_000)
BATCH_SIZE, SHARD_SIZE, IMAGE_SIZE = 32, 256, 16
SETTINGS = {"num_steps": 50, "guidance_scale": 5.0, "tapped_step": 1}
CATEGORIES = ("dog", "car", "potted plant", "tv monitor")


@dataclass(frozen=True)
class NoiseGenerator:
    """Stands for a Generator: images and latents of noise, in no time. Notes its process's memory in `memory_dir`."""

    memory_dir: Path
    generator_id: str = "noise"
    image_size: int = IMAGE_SIZE
    dtype: torch.dtype = torch.float32

    def timestep(self, *, num_steps: int, tapped_step: int) -> int:
        return tapped_step

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], **settings: Any) -> Samples:
        noise = [np.random.default_rng(seed).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 4), np.uint8) for seed in seeds]
        (self.memory_dir / str(os.getpid())).write_text(str(peak_mb()))
        images = np.stack(noise)
        return Samples(
            images=np.ascontiguousarray(images[..., :3]),
            latents=torch.from_numpy(images[:, :8, :8].astype(np.float32)).permute(0, 3, 1, 2),
            timestep=1,
        )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def records(num: int) -> Iterator[PromptRecord]:
    for i in range(num):
        named = (CATEGORIES[i % 4], CATEGORIES[(i + 1) % 4])
        yield PromptRecord(
            id=f"synthesis-{i:06d}", prompt=f"a photograph of a {named[0]} and a {named[1]} on the grass",
            categories=named, group="two_seen", seed=i, source="scene",
        )  # fmt: skip


def measure_reference(folder: Path) -> dict[str, float]:
    generator, all_records = NoiseGenerator(folder / "memory"), read_prompts(folder / "prompts.jsonl")
    out = folder / "reference"
    out.mkdir()
    start_s = time.perf_counter()
    for number, first in enumerate(range(0, len(all_records), SHARD_SIZE)):
        shard = all_records[first : first + SHARD_SIZE]
        with tarfile.open(out / f"{number:06d}.tar", "w") as archive:
            for start in range(0, len(shard), BATCH_SIZE):
                batch = shard[start : start + BATCH_SIZE]
                samples = generator.sample([r.prompt for r in batch], [r.seed for r in batch])
                for record, image, latent in zip(batch, samples.images, samples.latents.numpy(), strict=True):
                    for name, content in (
                        ("image.png", encode_png(image)),
                        ("latent.npy", encode_array(latent.astype(np.float16))),
                        ("meta.json", encode_json({**record.to_json(), **SETTINGS})),
                    ):
                        info = tarfile.TarInfo(f"{record.id}.{name}")
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))
    return {"reference_s": time.perf_counter() - start_s}


def measure_run(folder: Path, *, workers: int, backend: str) -> dict[str, float]:
    memory_dir = folder / f"memory-{os.getpid()}"
    memory_dir.mkdir()
    runtime = RuntimeConfig(device="cpu", num_threads=workers, num_workers=workers, backend=backend, ray_address="")
    imported_mb, start_s = peak_mb(), time.perf_counter()
    all_records = read_prompts(folder / "prompts.jsonl")
    with Workers.of(runtime, torch.device("cpu")) as started:
        num_shards = generate_shards(
            all_records, out_dir=folder / "shards", generator=cast(Generator, NoiseGenerator(memory_dir)),
            batch_size=BATCH_SIZE, shard_size=SHARD_SIZE, workers=started, **SETTINGS,
        )  # fmt: skip
        time_s = time.perf_counter() - start_s
    peaks = {path.name: float(path.read_text()) for path in memory_dir.iterdir()}
    return {
        "num_shards_written": num_shards,
        "time_s": time_s,
        "parent_peak_mb": peak_mb(),
        "parent_imported_mb": imported_mb,
        "worker_peak_mb": max((mb for pid, mb in peaks.items() if pid != str(os.getpid())), default=0.0),
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
        assert run["num_shards_written"] == -(-num // SHARD_SIZE) and restart["num_shards_written"] == 0
        return {
            "num_prompts": num,
            "ms_per_sample": 1000 * run["time_s"] / num,
            "reference_ms_per_sample": 1000 * reference["reference_s"] / num,
            "ratio_to_reference": run["time_s"] / reference["reference_s"],
            "restart_s": restart["time_s"],
            "parent_imported_mb": run["parent_imported_mb"],
            "parent_peak_mb": run["parent_peak_mb"],
            "restart_peak_mb": restart["parent_peak_mb"],
            "worker_peak_mb": run["worker_peak_mb"],
        }


def to_markdown(rows: Sequence[dict[str, float]], setting: dict[str, Any]) -> str:
    columns = {
        "prompts": "{num_prompts:,}", "ms a sample": "{ms_per_sample:.2f}",
        "plain tarfile, ms a sample": "{reference_ms_per_sample:.2f}", "ratio": "{ratio_to_reference:.2f}",
        "restart when finished, s": "{restart_s:.1f}", "imports alone, MB": "{parent_imported_mb:.0f}",
        "parent's peak, MB": "{parent_peak_mb:.0f}", "a worker's peak, MB": "{worker_peak_mb:.0f}",
    }  # fmt: skip
    lines = [
        f"Backend {setting['backend']}, {setting['workers']} workers, {setting['shard_size']} samples a shard, "
        f"{setting['cores']} cores. Made by `python benchmarks/scale.py`, which says what is measured.\n",
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
    rows = [measure(num, workers=args.workers, backend=args.backend) for num in args.sizes]
    setting = {
        "workers": args.workers,
        "backend": args.backend,
        "shard_size": SHARD_SIZE,
        "cores": len(os.sched_getaffinity(0)),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scale.json").write_text(json.dumps({"setting": setting, "sizes": rows}, indent=2) + "\n")
    table = to_markdown(rows, setting)
    (args.out / "scale.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
