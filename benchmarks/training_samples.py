"""How fast samples for the training of the grounding module are made, against the way of the released code.

    python -m benchmarks training_samples        # profile mini, some three minutes

The released code samples an image again each time it is used for training, one at a time, with guidance in all of 50
steps. Its time per sample is computed from two measured parts: 50 guided steps of one image (both halves of guidance in
one UNet pass, as there) and one decoded image. Ours samples an image once, in batches, and reads the features of its
stored latent each time. Both train equally long, so that time is left out.

The parts are measured in turn, on one thread, in several rounds. Each round has a ratio of its own, since a shared
machine is not equally fast in all rounds. Writes reports/benchmarks/training_samples.json and training_samples.md: the
median of the rounds, and the middle half of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks._record import OUT, in_words, machine, write
from benchmarks.speed import WORDS, load_generator
from diffground.diffusion.generator import Tap
from diffground.report.tables import Table
from diffground.reproduction.config import Params, load_params
from diffground.runtime.device import setup_torch
from diffground.vocabulary import photograph_of

RELEASED_STEPS = 50
GUIDED, DECODED, SAMPLED, FEATURES = "one guided step", "one decoded image", "a sampled batch", "features of a batch"
CALLS = {GUIDED: 20, DECODED: 10}
"""How often the short cases run per round."""


def cases(params: Params, *, batch_size: int) -> dict[str, Callable[[], object]]:
    p = params.generator
    generator = load_generator(params, image_size=p.image_size)
    prompts = [photograph_of(*WORDS[i % len(WORDS)]) for i in range(batch_size)]
    seeds = list(range(batch_size))
    noise, timestep = generator.noise(seeds), generator.timesteps(p.sampling)[-1]
    guided = generator.predictor(prompts[:1], guidance_scale=p.sampling.guidance_scale)
    return {
        GUIDED: lambda: guided(noise[:1], timestep),
        DECODED: lambda: generator.decode(noise[:1]),
        SAMPLED: lambda: generator.sample(prompts, seeds, p.sampling),
        FEATURES: lambda: generator.features(noise, prompts, timestep=timestep, tap=Tap()),
    }


def measure(subject: Mapping[str, Callable[[], object]], *, rounds: int) -> list[dict[str, float]]:
    """Seconds per call of each case, by round; a first round does not count."""
    times = []
    for _ in range(1 + rounds):
        of_round = {}
        for name, case in subject.items():
            start_s = time.perf_counter()
            for _ in range(CALLS.get(name, 1)):
                case()
            of_round[name] = (time.perf_counter() - start_s) / CALLS.get(name, 1)
        times.append(of_round)
    return times[1:]


def ratio(times: Mapping[str, float], *, batch_size: int, epochs: float) -> float:
    """How many times as fast ours makes samples that are each used `epochs` times."""
    released = epochs * (RELEASED_STEPS * times[GUIDED] + times[DECODED])
    return batch_size * released / (times[SAMPLED] + epochs * times[FEATURES])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=OUT / "training_samples")
    arguments = parser.parse_args()
    params = load_params()
    setup_torch(num_threads=1)
    batch_size = params.generator.batch_size
    times = measure(cases(params, batch_size=batch_size), rounds=arguments.rounds)
    num_samples = params.prompts.num_train_one + params.prompts.num_train_two
    of_profile = params.grounding.iterations * params.grounding.batch_size / num_samples
    found = {}
    for epochs in (1, of_profile):
        each = [ratio(of_round, batch_size=batch_size, epochs=epochs) for of_round in times]
        quarter, middle, three_quarters = np.percentile(each, (25, 50, 75)).round(1).tolist()
        uses = "once" if epochs == 1 else f"{epochs:.0f} times, as in profile mini"
        found[f"each used {uses}"] = {"median": middle, "middle_half": [quarter, three_quarters]}
    here = machine(num_threads=1)
    results = {
        "ratios": found,
        "times_s": [{name: round(seconds, 4) for name, seconds in of_round.items()} for of_round in times],
        "batch_size": batch_size,
        "machine": here,
    }
    header = ("samples for training, times as fast as the released way", "median", "middle half of the rounds")
    rows = [(name, f"{of['median']:.1f}", "{:.1f} to {:.1f}".format(*of["middle_half"])) for name, of in found.items()]
    table = Table(header=header, rows=tuple(rows))
    text = f"Profile mini, batches of {batch_size}, {arguments.rounds} rounds. {in_words(here)}"
    write(arguments.out, results, table, text=text)
    print(table.to_markdown())


if __name__ == "__main__":
    main()
