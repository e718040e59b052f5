"""DDIM inversion: it undoes sampling, for every prediction type and schedule, whatever else is in the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from diffground.diffusion.generator import Generator
from diffground.diffusion.inversion import (
    _last_steps,
    _undo,
    check_inversion,
    invert_latents,
    resample,
    round_trip_error,
)
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.reproduction import smoke

PROMPTS = ["a photograph of a dog", "a photograph of a cat and a bus", "a photograph of a bus", "a photograph of a cat"]
TYPES = ("epsilon", "v_prediction", "sample")
# Stable Diffusion 1.x, and the schedule of the mini checkpoint
LEADING = {"timestep_spacing": "leading", "set_alpha_to_one": False, "rescale_betas_zero_snr": False}
TRAILING = {"timestep_spacing": "trailing", "set_alpha_to_one": True, "rescale_betas_zero_snr": True}

Build = Callable[..., Generator]


@pytest.fixture(scope="module")
def build() -> Build:
    """A tiny random pipeline with another prediction type and schedule."""

    def make(prediction_type: str, schedule: dict[str, object]) -> Generator:
        torch.manual_seed(1)
        pipeline = smoke.build_pipeline()
        pipeline.scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            prediction_type=prediction_type,
            **{"clip_sample": False, **schedule},
        )
        return Generator(pipeline, image_size=smoke.IMAGE_SIZE, generator_id="tiny")

    return make


def clean_latents(generator: Generator) -> Tensor:
    return generator.noise([1, 2, 3, 4]) * 0.9


def errors(generator: Generator, *, num_steps: int, tapped_step: int, **settings: Any) -> Tensor:
    clean = clean_latents(generator)
    latents = invert_latents(generator, clean, PROMPTS, num_steps=num_steps, tapped_step=tapped_step, **settings)
    shared = {key: value for key, value in settings.items() if key in ("guidance_scale", "timesteps")}
    returned = resample(generator, latents, PROMPTS, num_steps=num_steps, from_step=tapped_step, **shared)
    return round_trip_error(clean, returned)


def test_resampling_from_the_tapped_latents_gives_the_sampled_images(generator: Generator) -> None:
    settings = {"num_steps": 5, "guidance_scale": 3.0}
    samples = generator.sample(PROMPTS, [1, 2, 3, 4], Sampling(tapped_step=2, **settings))
    tapped = resample(generator, samples.latents, PROMPTS, from_step=2, **settings)
    from_noise = resample(generator, generator.noise([1, 2, 3, 4]), PROMPTS, from_step=5, **settings)
    # a step in closed form rounds differently from that of diffusers: by at most one grey level
    for clean in (tapped, from_noise):
        np.testing.assert_allclose(generator.decode(clean).astype(int), samples.images.astype(int), rtol=0, atol=1)


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("schedule", [LEADING, TRAILING])
def test_a_step_of_diffusers_is_undone_exactly_when_its_prediction_is_known(
    build: Build, prediction_type: str, schedule: dict[str, object]
) -> None:
    # seven does not divide 1000, so the noise levels that the steps lead to are not those of the next timesteps
    generator = build(prediction_type, schedule)
    scheduler = generator.scheduler(7)
    entering, predicted = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = _last_steps(generator, 7, num_steps=7, timesteps=())
    assert [step.timestep for step in steps] == scheduler.timesteps.flip(0).tolist()
    # of pure noise a model that predicts noise says nothing
    known = steps[:6] if schedule is TRAILING and prediction_type == "epsilon" else steps
    for step in known:
        left = scheduler.step(predicted, step.timestep, entering).prev_sample
        undone = _undo(step, left, predicted=predicted, predicted_of=entering, kind=prediction_type)
        torch.testing.assert_close(undone, entering, atol=1e-4, rtol=1e-4)


def test_plain_inversion_equals_that_of_diffusers(build: Build) -> None:
    generator = build("epsilon", LEADING)
    clean = clean_latents(generator)
    config = generator._scheduler_config
    inverse = DDIMInverseScheduler.from_config({k: v for k, v in config.items() if not k.startswith("_")})
    inverse.set_timesteps(10)
    expected, text = clean, generator.embed(PROMPTS)
    with torch.no_grad():
        for timestep in inverse.timesteps[:6]:
            noise = generator._unet(expected, timestep, encoder_hidden_states=text).sample
            expected = inverse.step(noise, timestep, expected).prev_sample
    latents = invert_latents(generator, clean, PROMPTS, num_steps=10, tapped_step=6)
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(latents, clean, atol=0.1)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_steps_at_given_timesteps_are_undone(build: Build, prediction_type: str) -> None:
    generator = build(prediction_type, TRAILING)
    clean = clean_latents(generator)
    settings = {"num_steps": 4, "tapped_step": 2, "fixed_point_iterations": 2}
    even = generator.timesteps(Sampling(4, 1.0, 1))
    by_default, named = (invert_latents(generator, clean, PROMPTS, **settings, timesteps=t) for t in ((), even))
    torch.testing.assert_close(named, by_default)  # the stride of 250 leads to the same timesteps
    uneven = {"timesteps": [980, 600, 210, 70], "num_steps": 4, "fixed_point_iterations": 20}
    assert errors(generator, tapped_step=2, **uneven).max() < 1e-3
    with pytest.raises(UserError, match=r"timesteps must fall, from at most 999 to at least 0, got \[5, 9\]"):
        errors(generator, num_steps=2, tapped_step=1, timesteps=[5, 9])


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_inversion_finds_the_latents_that_were_sampled_from(build: Build, prediction_type: str) -> None:
    generator = build(prediction_type, LEADING)
    settings = {"num_steps": 8, "guidance_scale": 1.5}
    sampled = generator.sample(PROMPTS, [1, 2, 3, 4], Sampling(tapped_step=5, **settings)).latents
    clean = resample(generator, sampled, PROMPTS, from_step=5, **settings)
    found = invert_latents(generator, clean, PROMPTS, tapped_step=5, fixed_point_iterations=8, **settings)
    torch.testing.assert_close(found, sampled, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_round_trip_error_falls_with_more_steps(build: Build, prediction_type: str) -> None:
    generator = build(prediction_type, TRAILING)
    few, more, many = (float(errors(generator, num_steps=n, tapped_step=n // 2).mean()) for n in (4, 8, 32))
    assert many < 0.03
    assert more < 0.6 * few
    assert many < 0.3 * more


@pytest.mark.parametrize(("prediction_type", "schedule"), [("epsilon", LEADING), ("v_prediction", TRAILING)])
def test_the_round_trip_error_falls_with_fixed_point_iterations(
    build: Build, prediction_type: str, schedule: dict[str, object]
) -> None:
    generator = build(prediction_type, schedule)
    plain, some, many = (errors(generator, num_steps=8, tapped_step=4, fixed_point_iterations=n) for n in (0, 2, 8))
    assert (some < 0.5 * plain).all()
    assert many.max() < 1e-5


@pytest.mark.parametrize("prediction_type", TYPES)
@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_four_at_once_equal_four_times_one(build: Build, prediction_type: str, guidance_scale: float) -> None:
    generator = build(prediction_type, LEADING)
    clean = clean_latents(generator)
    settings = {"num_steps": 6, "tapped_step": 3, "fixed_point_iterations": 2, "guidance_scale": guidance_scale}
    together = invert_latents(generator, clean, PROMPTS, **settings)
    assert together.shape == (4, 4, 8, 8)
    assert together.dtype == torch.float32
    for i in range(4):
        alone = invert_latents(generator, clean[i : i + 1], PROMPTS[i : i + 1], **settings)
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=1e-4)


def test_one_step_worked_by_hand(build: Build) -> None:
    """A velocity b that never changes: x = (z + sin(a) b) / cos(a), with cos(a)^2 the clean share at timestep 99."""
    generator = build("v_prediction", TRAILING)
    generator._unet.conv_out.weight.data.zero_()
    generator._unet.conv_out.bias.data.copy_(torch.tensor([0.3, -0.8, 0.5, 1.1]))
    clean = clean_latents(generator)
    assert generator.timestep(Sampling(10, 1.0, 1)) == 99
    share = float(generator.scheduler(10).alphas_cumprod[99])
    velocity = torch.tensor([0.3, -0.8, 0.5, 1.1]).view(1, 4, 1, 1)
    expected = (clean + math.sqrt(1 - share) * velocity) / math.sqrt(share)
    torch.testing.assert_close(invert_latents(generator, clean, PROMPTS, num_steps=10, tapped_step=1), expected)


def test_images_are_encoded_as_by_diffusers(generator: Generator) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    pixels = VaeImageProcessor(vae_scale_factor=2).preprocess(images.astype(np.float32) / 255)
    with torch.no_grad():
        expected = generator._vae.encode(pixels).latent_dist.mean * generator._vae.config.scaling_factor
    torch.testing.assert_close(generator.encode(images), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"must be uint8 \(B, 32, 32, 3\), got uint8 \(2, 16, 32, 3\)"):
        generator.encode(images[:, :16])
    with pytest.raises(ValueError, match="got float64"):
        generator.encode(images / 255)


def test_round_trip_error_worked_by_hand() -> None:
    clean = torch.tensor([[[[3.0, 4.0]]], [[[0.0, 2.0]]]])
    returned = torch.tensor([[[[3.0, 3.0]]], [[[0.0, 2.0]]]])
    assert round_trip_error(clean, returned).tolist() == pytest.approx([0.2, 0.0])


@pytest.mark.parametrize(
    ("prediction_type", "schedule", "settings", "message"),
    [
        ("epsilon", LEADING, {"tapped_step": 9}, r"tapped_step must be 1 to num_steps \(8\), got 9"),
        ("epsilon", LEADING, {"num_steps": 0}, "num_steps must be 1 to 1000, got 0"),
        ("epsilon", LEADING, {"fixed_point_iterations": -1}, "must not be negative, got -1"),
        ("epsilon", {**LEADING, "clip_sample": True}, {}, "clip_sample cannot be inverted"),
        ("epsilon", {**LEADING, "thresholding": True}, {}, "thresholding cannot be inverted"),
        ("epsilon", TRAILING, {"tapped_step": 8}, "says nothing at timestep 999, which is pure noise"),
        ("v_prediction", TRAILING, {"num_steps": 1, "tapped_step": 1}, "num_steps is 1: a step from pure noise"),
    ],
)
def test_what_cannot_be_inverted_is_refused_in_one_line(
    build: Build, prediction_type: str, schedule: dict[str, object], settings: dict[str, int], message: str
) -> None:
    generator = build(prediction_type, schedule)
    arguments = {"num_steps": 8, "tapped_step": 4, "fixed_point_iterations": 0} | settings
    with pytest.raises(UserError, match=message) as caught:
        check_inversion(generator, **arguments)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=message):
        invert_latents(generator, clean_latents(generator), PROMPTS, **arguments)


def test_pure_noise_may_be_reached_by_a_model_that_predicts_velocity(build: Build) -> None:
    generator = build("v_prediction", TRAILING)
    assert errors(generator, num_steps=8, tapped_step=8, fixed_point_iterations=8).max() < 1e-4
