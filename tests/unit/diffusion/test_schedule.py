"""Timesteps of sampling: exactly as many as asked for, where the spacing's definition puts them."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from diffusers import DDIMScheduler

from diffground.diffusion.schedule import ddim_scheduler
from diffground.errors import UserError

TRAILING = DDIMScheduler(timestep_spacing="trailing").config


def defined(num_steps: int) -> list[int]:
    """'trailing' timesteps by their definition, without rounding errors."""
    return [round(1000 - Fraction(1000 * i, num_steps)) - 1 for i in range(num_steps)]


def steps_that_diffusers_miscounts() -> list[int]:
    plain = DDIMScheduler.from_config(TRAILING)
    miscounted = []
    for num_steps in range(1, 1001):
        plain.set_timesteps(num_steps)
        if len(plain.timesteps) != num_steps:
            miscounted.append(num_steps)
    return miscounted


def test_trailing_timesteps_are_those_of_the_definition() -> None:
    miscounted = steps_that_diffusers_miscounts()
    assert (len(miscounted), miscounted[:2]) == (62, [61, 103])
    for num_steps in sorted({*miscounted, 1, 12, 20, 50, 999, 1000}):
        timesteps = ddim_scheduler(TRAILING, num_steps=num_steps).timesteps.tolist()
        assert len(timesteps) == num_steps
        for i, (timestep, expected) in enumerate(zip(timesteps, defined(num_steps), strict=True)):
            is_half = Fraction(1000 * i, num_steps).denominator == 2  # may be rounded to either side
            assert timestep == expected or (is_half and abs(timestep - expected) == 1)


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_other_spacings_are_those_of_diffusers(spacing: str) -> None:
    plain = DDIMScheduler(timestep_spacing=spacing)
    for num_steps in (1, 7, 50, 61, 999):
        plain.set_timesteps(num_steps)
        assert torch.equal(ddim_scheduler(plain.config, num_steps=num_steps).timesteps, plain.timesteps)


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_a_number_of_steps_out_of_range_is_refused(num_steps: int) -> None:
    with pytest.raises(UserError, match=f"generator.num_steps must be 1 to 1000, got {num_steps}"):
        ddim_scheduler(TRAILING, num_steps=num_steps)
