"""What masks cost, compared with named references that are measured in the same run.

    python benchmarks/speed.py                 # profile mini, some three minutes

- masks: labelled images against images of plain diffusers' `StableDiffusionPipeline`, with the same checkpoint,
  sampler, timesteps, guidance and batch, for the paper's module and for profile mini's;
- bound: the time of the bare UNet and VAE forward passes, as a share of the whole.

All cases run in turn, several times, on one thread; medians are compared. Writes reports/benchmarks/speed.json and
speed.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from diffground.atomic import write_atomically
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.grounding.fit import spec_for
from diffground.grounding.prediction import Grounder
from diffground.report.tables import Table
from diffground.reproduction.config import Params, load_params
from diffground.runtime.device import setup_torch
from diffground.vocabulary import photograph_of

OUT = Path("reports/benchmarks")
WORDS = [["dog"], ["cat", "sofa"], ["bus"], ["person", "horse"]]
"""Of four prompts, in turn: one word in half of the images, two in the other half."""


def median_times(cases: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Seconds of each case; they take turns, after a first round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(1 + repeats):
        for name, case in cases.items():
            start_s = time.perf_counter()
            case()
            times[name].append(time.perf_counter() - start_s)
    return {name: statistics.median(of_case[1:]) for name, of_case in times.items()}


def load_generator(params: Params, *, image_size: int) -> Generator:
    """The profile's generator on the CPU, float32. image_size: side in pixels."""
    p = params.generator
    return Generator.load(
        p.checkpoint,
        device=torch.device("cpu"),
        dtype=torch.float32,
        image_size=image_size,
        config_from=p.config_from,
        loras=p.loras,
    )


def plain_pipeline(checkpoint: str, sampling: Sampling) -> StableDiffusionPipeline:
    """diffusers' own pipeline with the same sampler and memory format."""
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    if sampling.sampler == "dpmsolver++":
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    for module in (pipeline.unet, pipeline.vae):
        module.to(memory_format=torch.channels_last)
    return pipeline


def fresh_grounder(generator: Generator, params: Params, sampling: Sampling, **changes: Any) -> Grounder:
    """A module with random weights: they change no time."""
    torch.manual_seed(0)
    spec = spec_for(generator, replace(params.grounding, **changes), sampling=sampling)
    module = spec.build().eval().requires_grad_(False)
    return Grounder(generator=generator, module=module, branches=spec.branches, gain_timesteps=spec.gain_timesteps)


def measure(params: Params, *, batch_size: int, repeats: int) -> dict[str, float]:
    """Seconds of each case, for one batch where its name says nothing else."""
    p = params.generator
    sampling = replace(p.sampling, guidance_interval=())  # plain diffusers has guidance in all steps
    generator = load_generator(params, image_size=p.image_size)
    plain = plain_pipeline(p.checkpoint, sampling)
    words = [WORDS[i % len(WORDS)] for i in range(batch_size)]
    prompts, seeds = [photograph_of(*of) for of in words], list(range(batch_size))
    timesteps, noise = generator.timesteps(sampling), generator.noise(seeds)
    steps = {"timesteps": timesteps} if sampling.timesteps else {"num_inference_steps": sampling.num_steps}
    paper = fresh_grounder(generator, params, sampling, word_attention=False)
    attention = fresh_grounder(generator, params, sampling, gain_timesteps=())
    mini = fresh_grounder(generator, params, sampling)
    guided = generator.predictor(prompts, guidance_scale=sampling.guidance_scale)

    def forward_passes() -> None:
        for timestep in timesteps:
            guided(noise, timestep)
        generator.decode(noise)

    return median_times(
        {
            "plain diffusers": lambda: plain(
                prompts, latents=noise, guidance_scale=sampling.guidance_scale, output_type="np", **steps
            ),
            "UNet and VAE passes": forward_passes,
            "images without masks": lambda: generator.sample(prompts, seeds, sampling),
            "masks of the paper's module": lambda: paper.sample(prompts, seeds, sampling, words=words),
            "masks with words' attention": lambda: attention.sample(prompts, seeds, sampling, words=words),
            "masks of profile mini": lambda: mini.sample(prompts, seeds, sampling, words=words),
            "masks and sampling of profile mini": lambda: mini.sample(prompts, seeds, p.sampling, words=words),
        },
        repeats=repeats,
    )


def ratios(times: Mapping[str, float]) -> dict[str, float]:
    """What the documentation shows."""
    plain, passes = times["plain diffusers"], times["UNet and VAE passes"]
    return {
        **{
            f"overhead of {name}, %": 100 * (times[name] / plain - 1)
            for name in times
            if name.startswith(("images without", "masks"))
        },
        **{
            f"share of the UNet and VAE passes in {name}, %": 100 * passes / times[name]
            for name in ("images without masks", "masks of the paper's module")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, default=OUT / "speed")
    arguments = parser.parse_args()
    params = load_params()
    setup_torch(num_threads=1)
    times = measure(params, batch_size=arguments.batch_size, repeats=arguments.repeats)
    found = ratios(times)
    results = {
        "ratios": {name: round(value, 2) for name, value in found.items()},
        "times_s": {name: round(value, 4) for name, value in times.items()},
        "batch_size": arguments.batch_size,
        "repeats": arguments.repeats,
        "num_threads": 1,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }
    write_atomically(arguments.out.with_suffix(".json"), json.dumps(results, indent=2) + "\n")
    rows = tuple((name, f"{value:.1f}") for name, value in found.items())
    table = Table(header=("profile mini, one thread, float32", "measured"), rows=rows).to_markdown()
    write_atomically(arguments.out.with_suffix(".md"), table)
    print(table)


if __name__ == "__main__":
    main()
