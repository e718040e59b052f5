"""What masks cost at the size of Stable Diffusion 1.5: 512 pixels, 50 steps, random weights.

    python benchmarks/sd15.py                  # about eight minutes on two cores, 8 GiB

Plain diffusers samples one image in one step and in two, which gives the time of a step and of all else. Ours samples
it in two steps, with masks. What it takes longer does not depend on the number of steps, so the overhead at 50 steps is
that difference over the time of plain diffusers at 50, which is computed. Batch size 1, guidance in all steps, the
settings of profile paper_voc. Writes reports/benchmarks/sd15.json and sd15.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
import yaml

from benchmarks._random_pipelines import build_sd15
from benchmarks.speed import OUT, fresh_grounder, median_times
from diffground.atomic import write_atomically
from diffground.diffusion.generator import Generator
from diffground.grounding.prediction import Grounder
from diffground.report.tables import Table
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import Params
from diffground.reproduction.params import build_params
from diffground.runtime.device import setup_torch
from diffground.vocabulary import photograph_of

PLUS = {"word_attention": True, "gain_timesteps": (499, 599, 699)}
"""What profile mini's module reads in addition to the paper's."""
NUM_STEPS = 50
WORDS = ["dog", "sofa"]


def measure(params: Params, *, repeats: int) -> dict[str, float]:
    """Seconds of each case, for one image."""
    torch.manual_seed(0)
    pipeline = build_sd15()
    generator = Generator(pipeline, image_size=512, generator_id="random")  # in channels_last, for both
    sampling = replace(params.generator.sampling, num_steps=2, tapped_step=1)
    prompt = photograph_of(*WORDS)
    noise = generator.noise([0])
    paper = fresh_grounder(generator, params, sampling)
    plus = fresh_grounder(generator, params, sampling, **PLUS)

    def plain(num_steps: int) -> None:
        pipeline(
            [prompt],
            latents=noise,
            num_inference_steps=num_steps,
            guidance_scale=sampling.guidance_scale,
            output_type="np",
        )

    def ours(grounder: Grounder) -> None:
        grounder.sample([prompt], [0], sampling, words=[WORDS])

    return median_times(
        {
            "plain diffusers, 1 step": lambda: plain(1),
            "plain diffusers, 2 steps": lambda: plain(2),
            "masks of the paper's module, 2 steps": lambda: ours(paper),
            "masks of profile mini's module, 2 steps": lambda: ours(plus),
        },
        repeats=repeats,
    )


def overheads(times: dict[str, float]) -> dict[str, float]:
    """Percent over plain diffusers at NUM_STEPS steps."""
    one, two = times["plain diffusers, 1 step"], times["plain diffusers, 2 steps"]
    at_all = two + (NUM_STEPS - 2) * (two - one)
    return {
        f"overhead of {name.removesuffix(', 2 steps')}, %": 100 * (time - two) / at_all
        for name, time in times.items()
        if name.startswith("masks")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT / "sd15")
    arguments = parser.parse_args()
    setup_torch(num_threads=arguments.threads)
    params = build_params(
        yaml.safe_load(compose_params("paper_voc", conf=Path("conf"))), Params, source="profile 'paper_voc'"
    )
    times = measure(params, repeats=arguments.repeats)
    found = overheads(times)
    results = {
        "ratios": {name: round(value, 2) for name, value in found.items()},
        "times_s": {name: round(value, 3) for name, value in times.items()},
        "num_steps": NUM_STEPS,
        "repeats": arguments.repeats,
        "num_threads": arguments.threads,
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }
    write_atomically(arguments.out.with_suffix(".json"), json.dumps(results, indent=2) + "\n")
    rows = tuple((name, f"{value:.1f}") for name, value in found.items())
    header = (f"Stable Diffusion 1.5, random weights, {NUM_STEPS} steps, float32", "computed")
    table = Table(header=header, rows=rows).to_markdown()
    write_atomically(arguments.out.with_suffix(".md"), table)
    print(table)


if __name__ == "__main__":
    main()
