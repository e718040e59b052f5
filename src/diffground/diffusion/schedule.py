"""How a checkpoint is sampled: its noise schedule, a sampler, and at which timesteps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, SchedulerMixin

from diffground.diffusion.sampling import SAMPLERS, Sampling
from diffground.errors import UserError

_PREDICTIONS = ("epsilon", "v_prediction", "sample")


def check_scheduler(scheduler: SchedulerMixin) -> None:
    """Raises: UserError for a scheduler that has no noise schedule of diffusion (flow matching, EDM, consistency …):
    its UNet would be sampled as if it predicted noise.
    """
    config = scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    is_flow = bool(config.get("use_flow_sigmas")) or prediction not in _PREDICTIONS
    if is_flow or not hasattr(scheduler, "alphas_cumprod"):
        what = f", which predicts {prediction}" if is_flow else ""
        raise UserError(
            f"generator.checkpoint: its scheduler is {type(scheduler).__name__}{what}; must be one with a noise "
            "schedule of diffusion, as DDIMScheduler; take a Stable Diffusion 1.x, 2.x or XL pipeline"
        )


def sampling_scheduler(config: Mapping[str, Any], sampling: Sampling) -> DDIMScheduler | DPMSolverMultistepScheduler:
    """The noise schedule of a diffusers scheduler's `config` as the sampler that `sampling` names, ready for one use.

    Without timesteps of its own, DPM-Solver++ visits those of DDIM, whatever the spacing of `config`.
    Raises: UserError for settings out of range.
    """
    if sampling.sampler not in SAMPLERS:
        raise UserError(f"generator.sampler must be one of {', '.join(SAMPLERS)}, got '{sampling.sampler}'")
    ddim = ddim_scheduler(config, num_steps=sampling.num_steps)
    _check_interval(sampling.guidance_interval)
    _check_timesteps(sampling, limit=ddim.config.num_train_timesteps)
    if not 1 <= sampling.tapped_step <= sampling.num_steps:
        raise UserError(
            f"generator.tapped_step must be 1 to num_steps ({sampling.num_steps}), got {sampling.tapped_step}"
        )
    if sampling.sampler == "ddim":
        return ddim
    solver = DPMSolverMultistepScheduler.from_config(dict(config), algorithm_type="dpmsolver++")
    solver.set_timesteps(timesteps=list(sampling.timesteps) or ddim.timesteps.tolist())
    return solver


def _check_interval(interval: tuple[int, ...]) -> None:
    if interval and (len(interval) != 2 or interval[0] < interval[1]):
        raise UserError(
            "generator.guidance_interval must be empty or the first and the last timestep with guidance, falling, got "
            f"{list(interval)}"
        )


def _check_timesteps(sampling: Sampling, *, limit: int) -> None:
    """Raises: UserError for timesteps that cannot be visited."""
    timesteps = list(sampling.timesteps)
    if not timesteps:
        return
    if sampling.sampler == "ddim":
        raise UserError("generator.timesteps needs generator.sampler 'dpmsolver++'; leave it empty for 'ddim'")
    if len(timesteps) != sampling.num_steps:
        raise UserError(
            f"generator.timesteps must be generator.num_steps ({sampling.num_steps}) timesteps, got {len(timesteps)}"
        )
    if sorted(set(timesteps), reverse=True) != timesteps or timesteps[0] >= limit or timesteps[-1] < 0:
        raise UserError(f"generator.timesteps must fall, from at most {limit - 1} to at least 0, got {timesteps}")


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
