"""What a run costs, stage by stage, before it starts: images, UNet passes, time and disk."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from diffground.data.labelled import LabelledSample, oracle_sample
from diffground.diffusion.generator import Generator
from diffground.diffusion.load import load_generator
from diffground.grounding.features import CachedFeatures
from diffground.grounding.fit import spec_for
from diffground.grounding.train import TrainingSet, train_module
from diffground.prompts import PromptRecord
from diffground.reproduction.config import Params
from diffground.runtime.device import setup
from diffground.segmentation.protocol2 import fit_segmenter
from diffground.vocabulary import Vocabulary, photograph_of

_MEASURED_S = 2.5
"""How long each kind of pass is measured."""


@dataclass(frozen=True)
class Rates:
    """Measured on this machine, in one process."""

    device: str
    unet_s: float
    """Seconds per image and UNet pass."""
    decode_s: float
    """Seconds per image that the VAE decodes."""
    grounding_step_s: float
    segmenter_step_s: float


@dataclass(frozen=True)
class StageCost:
    """One stage. None: it has none of these."""

    stage: str
    num_images: int | None
    num_passes: int | None
    """UNet passes of one image; guidance takes two per step."""
    time_s: float
    disk_bytes: int


def estimate(params: Params, prompts: Mapping[str, Sequence[PromptRecord]], rates: Rates) -> list[StageCost]:
    """The stages that take time, in order. `prompts`: records of the sets train, test and synthesis."""
    sampled = _passes_of_sampling(params)
    gain = len(params.grounding.gain_timesteps) if params.grounding.word_attention else 0
    num_train, num_test, num_synthetic = (len(prompts[name]) for name in ("train", "test", "synthesis"))
    # an image with two words or more: a pass without a word and one per word, at each timestep
    gains = {
        name: sum(gain * (1 + len(r.categories)) for r in of if len(r.categories) > 1) for name, of in prompts.items()
    }
    image_bytes, latent_bytes = _bytes_per_image(params)
    # DAAM samples these images again; the others need one pass, and one per noise
    baseline_images = min(params.daam.num_calibration, num_train) + num_test

    def sampling(stage: str, num: int, extra: int, size: int) -> StageCost:
        passes = num * sampled + extra
        return StageCost(stage, num, passes, passes * rates.unet_s + num * rates.decode_s, num * size)

    def features(stage: str, num: int, passes: int, training_s: float = 0.0) -> StageCost:
        return StageCost(stage, num, passes, passes * rates.unet_s + training_s, 0)

    grounding_s = params.grounding.iterations * rates.grounding_step_s
    segmenter_s = params.segmenter.iterations * rates.segmenter_step_s * len(params.segmenter.training_sets)
    return [
        sampling("generate", num_train + num_test, 0, image_bytes + latent_bytes),
        features("train_grounding", num_train, num_train + gains["train"], grounding_s),
        features("evaluate_baselines", num_test, baseline_images * (sampled + 1 + params.text2mask.num_noises)),
        features("evaluate_grounding", num_test, num_test + gains["test"]),
        sampling("synthesize", num_synthetic, gains["synthesis"], image_bytes),
        StageCost("train_maskformer", num_synthetic, None, segmenter_s, 0),
    ]


def measure(params: Params, vocabulary: Vocabulary) -> Rates:
    """Time the parts on this machine; it takes about ten seconds after the checkpoints are loaded."""
    # the tokenizer may have imported torch, after which no instruction set can be chosen
    device = setup(replace(params.runtime, instruction_set="native"))
    p = params.generator
    generator = load_generator(p, device)
    num = min(p.batch_size, 8)
    prompts = [photograph_of(vocabulary.phrases[vocabulary.used[0]])] * num
    noise, predict = generator.noise(list(range(num))), generator.predictor(prompts)
    timestep = generator.timestep(p.sampling)
    with contextlib.redirect_stderr(io.StringIO()):  # progress of trainings of three steps
        return Rates(
            device=str(device),
            unet_s=_time(lambda: predict(noise, timestep)) / num,
            decode_s=_time(lambda: generator.decode(noise)) / num,
            grounding_step_s=_step_time(lambda steps: _train_grounding(params, generator, steps, device)),
            segmenter_step_s=_step_time(lambda steps: _train_segmenter(params, vocabulary, steps, device)),
        )


def as_lines(costs: Sequence[StageCost], rates: Rates) -> list[str]:
    """A table with a row per stage, then the sums."""
    lines = [f"{'stage':<20}{'images':>10}{'UNet passes':>14}{'about':>12}{'disk':>10}"]
    total = StageCost("total", None, None, sum(c.time_s for c in costs), sum(c.disk_bytes for c in costs))
    for cost in (*costs, total):
        numbers = [f"{number:,}" if number is not None else "" for number in (cost.num_images, cost.num_passes)]
        disk = f"{cost.disk_bytes / 2**20:,.0f} MiB" if cost.disk_bytes else ""
        lines.append(f"{cost.stage:<20}{numbers[0]:>10}{numbers[1]:>14}{_duration(cost.time_s):>12}{disk:>10}")
    return [
        *lines,
        f"Times were extrapolated from ten seconds on '{rates.device}'; imports and small stages add a little.",
    ]


def _passes_of_sampling(params: Params) -> int:
    """UNet passes per sampled image."""
    sampling = params.generator.sampling
    if sampling.guidance_scale <= 1:
        return sampling.num_steps
    if not sampling.guidance_interval or not sampling.timesteps:
        return 2 * sampling.num_steps
    first, last = sampling.guidance_interval
    return sampling.num_steps + sum(last <= timestep <= first for timestep in sampling.timesteps)


def _bytes_per_image(params: Params) -> tuple[int, int]:
    """A PNG with its label map, about, and a latent in float16."""
    size = params.generator.image_size
    return round(size * size * 1.6) + 4096, 4 * (size // 8) ** 2 * 2 + 1024


def _time(action: Callable[[], object]) -> float:
    """Seconds per call, after a first one."""
    action()
    start, num = time.perf_counter(), 0
    while num == 0 or time.perf_counter() - start < _MEASURED_S:
        action()
        num += 1
    return (time.perf_counter() - start) / num


def _step_time(train: Callable[[int], None]) -> float:
    """Seconds per optimizer step: of a training of three steps, less one of a single step."""
    took = {}
    for steps in (1, 3):
        start = time.perf_counter()
        train(steps)
        took[steps] = time.perf_counter() - start
    return max(0.0, took[3] - took[1]) / 2


def _train_grounding(params: Params, generator: Generator, steps: int, device: torch.device) -> None:
    """Train a new module on random features."""
    p, num = params.grounding, params.grounding.batch_size
    spec = spec_for(generator, p, sampling=params.generator.sampling)
    size = params.generator.image_size
    finest = max(spec.feature_channels)
    maps = {side: torch.zeros(num, channels, side, side) for side, channels in spec.feature_channels.items()}
    attention = torch.zeros(num, 1, spec.num_attention_maps, finest, finest) if spec.num_attention_maps else None
    mask = np.zeros((size, size), dtype=np.bool_)
    mask[: size // 2] = True
    written = [oracle_sample(f"s{i}", categories=["x"], masks={"x": mask}) for i in range(num)]
    data = TrainingSet(
        samples=[LabelledSample(sample, oracle=sample) for sample in written],
        words=[["x"]] * num,
        embeddings={"x": torch.zeros(spec.text_dim)},
        features=CachedFeatures(maps=maps, attention=attention, device=device),
        image_size=size,
    )
    train_module(
        spec.build().to(device),
        data,
        training_type=p.training_type,
        iterations=steps,
        batch_size=p.batch_size,
        learning_rate=p.learning_rate,
        weight_decay=p.weight_decay,
        decay_frac=p.decay_frac,
        query_noise=0.0,
        text_drop=p.text_drop,
        seed=0,
    )


def _train_segmenter(params: Params, vocabulary: Vocabulary, steps: int, device: torch.device) -> None:
    """Train a new one on empty images."""
    p, size = params.segmenter, params.generator.image_size
    label = np.zeros((size, size), dtype=np.uint8)
    label[: size // 2] = 1
    fit_segmenter(
        [(np.zeros((size, size, 3), dtype=np.uint8), label)] * p.batch_size,
        categories=vocabulary.categories,
        config=replace(p, iterations=steps),
        device=device,
        description="measure",
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
