"""One model of random weights on one device: images, labelled images, bare passes, at the best batch and at batch 1."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from benchmarks._best_batch import best_of, search_batches
from benchmarks._record import peak_mib
from diffground.diffusion.generator import Generator, Tap
from diffground.diffusion.sampling import Sampling
from diffground.grounding.config import GroundingConfig
from diffground.grounding.fit import spec_for
from diffground.grounding.prediction import Grounder
from diffground.vocabulary import photograph_of

WORDS = [["dog"], ["cat", "sofa"], ["bus"], ["person", "horse"]]
"""Of four prompts, in turn: one word in half of the images, two in the other half."""
RELEASED_STEPS = 50
"""Steps per training sample in the released code, which samples one image at a time."""
MAX_REPEATS = 3
SEARCH_SHARE = 0.4
"""Of the time, for the search of the batch size."""
CASES = ("plain diffusers", "images without masks", "labelled images", "UNet and VAE passes")


@dataclass(frozen=True)
class Setting:
    """What is measured, and how long it may take."""

    image_size: int
    sampling: Sampling
    grounding: GroundingConfig
    device: torch.device
    max_batch: int
    deadline_s: float
    """Of time.monotonic(); nothing is begun that would end after it, but for one measurement of each case."""


def build_on(build: Callable[[], DiffusionPipeline], *, device: torch.device, dtype: torch.dtype) -> DiffusionPipeline:
    """What `build` makes, with its weights drawn on `device` in `dtype`: a processor would take minutes."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            pipeline = build()
    finally:
        torch.set_default_dtype(previous)
    # the noise schedule is computed in float32, on the processor, as that of a checkpoint
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    return pipeline


def measure(pipeline: DiffusionPipeline, setting: Setting) -> Iterator[dict[str, Any]]:
    """The results so far, after the search of the batch size, after every round and at the end."""
    found: dict[str, Any] = {"num_steps": setting.sampling.num_steps, "times_s": {}, "repeats": 0}
    subject = _Subject(pipeline, setting)
    start_s = time.monotonic()
    rates, ended_by = search_batches(
        subject.estimate,
        max_batch=setting.max_batch,
        deadline_s=start_s + SEARCH_SHARE * (setting.deadline_s - start_s),
    )
    found["search"] = {
        "images_per_s": {str(size): round(rate, 4) for size, rate in rates.items()},
        "ended_by": ended_by,
    }
    if not rates:
        yield found
        return
    batch = best_of(rates)
    while batch > 1 and time.monotonic() + len(CASES) * batch / rates[batch] > setting.deadline_s:
        batch //= 2
    while True:
        found["batch_size"] = batch
        yield found
        try:
            yield from _rounds(subject, setting, found)
            return
        except torch.OutOfMemoryError:  # another case, such as plain diffusers, may need more than labelled images do
            if batch == 1:
                raise
        batch //= 2


def _rounds(subject: _Subject, setting: Setting, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All cases in turn, at found["batch_size"], until the deadline; `found` after each round."""
    batch = found["batch_size"]
    parts = subject.parts(batch)
    times: dict[str, list[float]] = {name: [] for name in CASES}
    round_s = 0.0
    for repeat in range(1, MAX_REPEATS + 1):
        if repeat > 1 and time.monotonic() + round_s > setting.deadline_s:
            return
        began_s = time.monotonic()
        for name in CASES:
            seconds, peak = subject.timed(name, batch)
            times[name].append(seconds)
            if name == "labelled images":
                found["peak_memory_gib"] = round(peak, 2)
        round_s = time.monotonic() - began_s
        medians = parts | {name: statistics.median(of_case) for name, of_case in times.items()}
        found["repeats"] = repeat
        found["times_s"] = {name: round(seconds, 5) for name, seconds in medians.items()}
        found["ratios"] = {name: round(value, 3) for name, value in ratios(medians, batch_size=batch).items()}
        yield found


def ratios(times: dict[str, float], *, batch_size: int) -> dict[str, float]:
    """What the table shows, from seconds per batch."""
    labelled, plain = times["labelled images"], times["plain diffusers"]
    released = RELEASED_STEPS * times["one guided step, one image"] + times["one decoded image"]
    read = (times["images without masks"] + times["features"]) / batch_size
    return {
        "labelled images per second": batch_size / labelled,
        "overhead over plain diffusers, %": 100 * (labelled / plain - 1),
        "share of the UNet and VAE passes, %": 100 * times["UNet and VAE passes"] / labelled,
        "labelled images against the released way at batch 1, times": released * batch_size / labelled,
        "training samples against the released way, one epoch, times": released / read,
    }


@dataclass
class _Subject:
    """The cases of one model. All take a batch size; their images are of the same prompts and noise."""

    pipeline: DiffusionPipeline
    setting: Setting
    generator: Generator = field(init=False)
    grounder: Grounder = field(init=False)

    def __post_init__(self) -> None:
        setting = self.setting
        self.generator = Generator(self.pipeline, image_size=setting.image_size, generator_id="random")
        torch.manual_seed(0)
        spec = spec_for(self.generator, setting.grounding, sampling=setting.sampling)
        module = spec.build().to(setting.device).eval().requires_grad_(False)
        self.grounder = Grounder(
            generator=self.generator, module=module, branches=spec.branches, gain_timesteps=spec.gain_timesteps
        )

    def estimate(self, batch: int) -> float:
        """Seconds for labelled images with all steps: two steps are sampled, the others counted as UNet passes."""
        _free(self.setting.device)
        few = replace(self.setting.sampling, num_steps=2, tapped_step=1)
        guided, noise = self._guided(batch), self.generator.noise(range(batch))

        def two_steps() -> None:
            self._labelled(batch, few)

        def one_pass() -> None:
            guided(noise, 1)

        for case in (two_steps, one_pass):  # the first call of a size also chooses kernels
            self._seconds(case)
        return self._seconds(two_steps) + (self.setting.sampling.num_steps - 2) * self._seconds(one_pass)

    def parts(self, batch: int) -> dict[str, float]:
        """Seconds of what the two ways of making a training sample consist of; plain diffusers is warmed up, too."""
        self._plain(batch, 2)
        noise = self.generator.noise(range(batch))
        prompts = _prompts(batch)
        guided_one = self._guided(1)
        tap = Tap(self.setting.grounding.branches)
        cases: dict[str, Callable[[], object]] = {
            "one guided step, one image": lambda: guided_one(noise[:1], 1),
            "one decoded image": lambda: self.generator.decode(noise[:1]),
            "features": lambda: self.generator.features(noise, prompts, timestep=1, tap=tap),
        }
        times = {}
        for name, case in cases.items():
            self._seconds(case)
            times[name] = statistics.median(self._seconds(case) for _ in range(MAX_REPEATS))
        return times

    def timed(self, name: str, batch: int) -> tuple[float, float]:
        """Seconds of one of CASES, and the peak memory, GiB: of the GPU, or of this process."""
        cases: dict[str, Callable[[], object]] = {
            "plain diffusers": lambda: self._plain(batch, self.setting.sampling.num_steps),
            "images without masks": lambda: self.generator.sample(_prompts(batch), range(batch), self.setting.sampling),
            "labelled images": lambda: self._labelled(batch, self.setting.sampling),
            "UNet and VAE passes": lambda: self._passes(batch),
        }
        device = self.setting.device
        _free(device)
        seconds = self._seconds(cases[name])
        if device.type == "cuda":
            return seconds, torch.cuda.max_memory_allocated(device) / 2**30
        return seconds, peak_mib() / 1024

    def _plain(self, batch: int, num_steps: int) -> None:
        self.pipeline(
            _prompts(batch),
            latents=self.generator.noise(range(batch)).to(self.generator.dtype),
            num_inference_steps=num_steps,
            guidance_scale=self.setting.sampling.guidance_scale,
            output_type="np",
        )

    def _labelled(self, batch: int, sampling: Sampling) -> None:
        self.grounder.sample(_prompts(batch), range(batch), sampling, words=_words(batch))

    def _guided(self, batch: int) -> Callable[[Tensor, int], Tensor]:
        return self.generator.predictor(_prompts(batch), guidance_scale=self.setting.sampling.guidance_scale)

    def _passes(self, batch: int) -> None:
        guided, noise = self._guided(batch), self.generator.noise(range(batch))
        for timestep in self.generator.timesteps(self.setting.sampling):
            guided(noise, timestep)
        self.generator.decode(noise)

    def _seconds(self, case: Callable[[], object]) -> float:
        _wait(self.setting.device)
        start_s = time.perf_counter()
        case()
        _wait(self.setting.device)
        return time.perf_counter() - start_s


def _words(batch: int) -> list[list[str]]:
    return [WORDS[i % len(WORDS)] for i in range(batch)]


def _prompts(batch: int) -> list[str]:
    return [photograph_of(*of_image) for of_image in _words(batch)]


def _wait(device: torch.device) -> None:
    """A GPU works on after the call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    """Give back what earlier sizes needed, and start to measure the peak again."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
