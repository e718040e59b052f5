"""data/prompts/{train,test}.jsonl -> data/generated/{train,test}: shards of images, tapped latents and records."""

from __future__ import annotations

import time

from _stage import Params, TrackingRun, run_stage

from diffground.diffusion.generate import generate_shards
from diffground.diffusion.load import load_generator
from diffground.prompts import PromptFile
from diffground.reproduction import paths
from diffground.runtime.backend import make_workers
from diffground.runtime.device import setup


def main(params: Params, run: TrackingRun) -> None:
    p = params.generator
    device = setup(params.runtime)
    generator = load_generator(p, device)
    with make_workers(params.runtime, device) as workers:
        for name, out_dir in paths.GENERATED.items():
            records = PromptFile(paths.PROMPTS[name])
            start = time.perf_counter()
            num_shards = generate_shards(
                records,
                out_dir=out_dir,
                generator=generator,
                sampling=p.sampling,
                batch_size=p.batch_size,
                shard_size=p.shard_size,
                description=f"generate {name}",
                workers=workers,
            )
            run.log_metrics(
                {
                    f"generate/{name}/num_images": len(records),
                    f"generate/{name}/num_shards_written": num_shards,
                    f"generate/{name}/time_s": time.perf_counter() - start,
                }
            )


if __name__ == "__main__":
    run_stage("generate", main)
