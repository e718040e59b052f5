"""DDIM inversion: an image -> the latent from which deterministic sampling makes it again.

Song et al., "Denoising Diffusion Implicit Models" (ICLR 2021), section 4.3; paper, supplementary (dataset construction
via DDIM inverse). A step of sampling is linear in the latent that enters it and in what the UNet predicts of that
latent. Solved for the latent, it gives the one that entered, but it needs the prediction for that latent, which is
unknown. Plain inversion uses the prediction for the latent after the step; fixed-point iterations then use the
prediction for the latent found so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError

_PURE_NOISE = 1e-4
"""Cosine below which the latent counts as pure noise."""


@torch.no_grad()
def invert_latents(
    generator: Generator,
    clean: Tensor,
    prompts: Sequence[str],
    *,
    num_steps: int,
    tapped_step: int,
    timesteps: Sequence[int] = (),
    fixed_point_iterations: int = 0,
    guidance_scale: float = 1.0,
) -> Tensor:
    """What enters the UNet at the tapped step when sampling with `num_steps` steps ends in `clean`.

    Args:
        clean: float (B, C, h, w), as Generator.encode gives.
        tapped_step: counted from the clean end as in Generator.sample: 1 inverts one step, num_steps all of them.
        timesteps: those that sampling visits, falling; empty: `num_steps`, evenly spread.
        fixed_point_iterations: UNet passes per step in addition to the first; 0 is the plain inversion.
        guidance_scale: of the sampling to be undone; above 1 plain inversion errs more and iterations may diverge.
    Returns: float32 (B, C, h, w), on the model's device; `resample` goes back. A sample does not depend on its batch.
    Raises: UserError for settings out of range, and for a scheduler or a step that cannot be undone.
    """
    steps = check_inversion(
        generator,
        num_steps=num_steps,
        tapped_step=tapped_step,
        timesteps=timesteps,
        fixed_point_iterations=fixed_point_iterations,
    )
    kind = generator.scheduler(num_steps).config.prediction_type
    predict = generator.predictor(prompts, guidance_scale=guidance_scale)
    latents = clean.to(generator.device, torch.float32)
    for step in steps:
        left_behind = latents
        for _ in range(1 + fixed_point_iterations):
            predicted = predict(latents, step.timestep)
            latents = _undo(step, left_behind, predicted=predicted, predicted_of=latents, kind=kind)
    return latents


def check_inversion(
    generator: Generator,
    *,
    num_steps: int,
    tapped_step: int,
    timesteps: Sequence[int] = (),
    fixed_point_iterations: int,
) -> list[_Step]:
    """The steps to undo, the last of the sampling first.

    Raises: UserError for settings out of range, and for a scheduler or a step that cannot be undone.
    """
    if fixed_point_iterations < 0:
        raise UserError(f"fixed_point_iterations must not be negative, got {fixed_point_iterations}")
    steps = _last_steps(generator, tapped_step, num_steps=num_steps, timesteps=timesteps)
    scheduler = generator.scheduler(num_steps)
    for setting in ("clip_sample", "thresholding"):
        if scheduler.config[setting]:
            raise UserError(
                f"generator.checkpoint: sampling with the scheduler's {setting} cannot be inverted; set it to false in "
                f"scheduler/scheduler_config.json or take another checkpoint"
            )
    for step in steps:
        if math.cos(step.before - step.after) < _PURE_NOISE:
            raise UserError(
                f"generator.num_steps is {num_steps}: a step from pure noise to the clean latent cannot be inverted; "
                f"take more steps"
            )
        if scheduler.config.prediction_type == "epsilon" and math.cos(step.before) < _PURE_NOISE:
            raise UserError(
                f"generator.checkpoint: a model that predicts noise says nothing at timestep {step.timestep}, which is "
                f"pure noise (rescale_betas_zero_snr); take a smaller generator.tapped_step"
            )
    return steps


@torch.no_grad()
def resample(
    generator: Generator,
    latents: Tensor,
    prompts: Sequence[str],
    *,
    num_steps: int,
    from_step: int,
    timesteps: Sequence[int] = (),
    guidance_scale: float = 1.0,
) -> Tensor:
    """Continue DDIM sampling from the latents that enter the UNet at `from_step`, counted from the clean end.

    timesteps: as for invert_latents.

    Returns: clean latents float32 (B, C, h, w) for Generator.decode; from the tapped latents of Generator.sample, those
        of its images. Raises: UserError for settings out of range.
    """
    kind = generator.scheduler(num_steps).config.prediction_type
    predict = generator.predictor(prompts, guidance_scale=guidance_scale)
    latents = latents.to(generator.device, torch.float32)
    for step in reversed(_last_steps(generator, from_step, num_steps=num_steps, timesteps=timesteps)):
        turn = step.before - step.after
        velocity = _velocity(step, latents, predict(latents, step.timestep), kind=kind)
        latents = math.cos(turn) * latents - math.sin(turn) * velocity
    return latents


def round_trip_error(clean: Tensor, returned: Tensor) -> Tensor:
    """Error of inversion plus sampling for clean latents (B, C, h, w): distance over their norm, float32 (B)."""
    return (returned - clean).flatten(1).norm(dim=1) / clean.flatten(1).norm(dim=1)


@dataclass(frozen=True)
class _Step:
    """One step of sampling; angles in radians, 0 is clean, pi / 2 pure noise."""

    timestep: int
    before: float
    """Angle of the latent that enters the UNet."""
    after: float
    """Angle of the latent that the step makes of it."""


def _last_steps(generator: Generator, num: int, *, num_steps: int, timesteps: Sequence[int]) -> list[_Step]:
    """The last `num` steps of DDIM sampling, the very last one first. Raises: UserError for settings out of range.

    Evenly spread, they are those of DDIMScheduler.step, which goes down by a stride.
    """
    generator.timestep(
        Sampling(num_steps, 1.0, num, "dpmsolver++" if timesteps else "ddim", tuple(timesteps))
    )  # says what is out of range
    scheduler = generator.scheduler(num_steps)
    visited = list(timesteps) or scheduler.timesteps.tolist()
    stride = scheduler.config.num_train_timesteps // num_steps
    following = [*timesteps[1:], -1] if timesteps else [timestep - stride for timestep in visited]
    steps = []
    for timestep, next_timestep in list(zip(visited, following, strict=True))[: -num - 1 : -1]:
        next_alpha = scheduler.alphas_cumprod[next_timestep] if next_timestep >= 0 else scheduler.final_alpha_cumprod
        before, after = (_angle(float(alpha)) for alpha in (scheduler.alphas_cumprod[timestep], next_alpha))
        steps.append(_Step(timestep=timestep, before=before, after=after))
    return steps


def _angle(alpha: float) -> float:
    """Of a latent whose share of clean variance is `alpha`, 0..1."""
    return math.atan2(math.sqrt(1 - alpha), math.sqrt(alpha))


def _undo(step: _Step, left_behind: Tensor, *, predicted: Tensor, predicted_of: Tensor, kind: str) -> Tensor:
    """The latent that entered a step which left `left_behind`, if `predicted` were the UNet's prediction of it.

    kind: what is predicted, DDIMScheduler's prediction_type. With the velocity v = cos(a) noise - sin(a) clean, a step
    from angle a to b is cos(a - b) x - sin(a - b) v.
    """
    turn = step.before - step.after
    if kind == "epsilon":
        return (math.cos(step.before) * left_behind + math.sin(turn) * predicted) / math.cos(step.after)
    return (left_behind + math.sin(turn) * _velocity(step, predicted_of, predicted, kind=kind)) / math.cos(turn)


def _velocity(step: _Step, latents: Tensor, predicted: Tensor, *, kind: str) -> Tensor:
    """What a prediction for the latents that enter `step` amounts to as velocity."""
    if kind == "epsilon":
        return (predicted - math.sin(step.before) * latents) / math.cos(step.before)
    if kind == "sample":
        return (math.cos(step.before) * latents - predicted) / math.sin(step.before)
    return predicted
