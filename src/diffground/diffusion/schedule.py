"""At which timesteps a checkpoint is sampled: its noise schedule as a DDIM sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import DDIMScheduler

from diffground.errors import UserError


def ddim_scheduler(config: Mapping[str, Any], *, num_steps: int) -> DDIMScheduler:
    """The noise schedule of a diffusers scheduler's `config` as a DDIM sampler of exactly `num_steps` timesteps.

    'trailing' spacing is defined as round(T - i T / num_steps) - 1 for i = 0 … num_steps - 1 ("Common Diffusion Noise
    Schedules and Sample Steps are Flawed", Table 2). diffusers counts down to 0 in floating point, and where that ends
    just above 0 (num_steps 61, 103, …) it adds a timestep -1; it is dropped here.
    Raises: UserError for a number of steps out of range.
    """
    scheduler = DDIMScheduler.from_config(dict(config))
    limit = scheduler.config.num_train_timesteps
    if not 1 <= num_steps <= limit:
        raise UserError(f"generator.num_steps must be 1 to {limit}, got {num_steps}")
    scheduler.set_timesteps(num_steps)
    scheduler.timesteps = scheduler.timesteps[:num_steps]
    return scheduler
