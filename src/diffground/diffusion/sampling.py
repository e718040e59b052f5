"""The settings of a sampling; imports nothing heavy, so that parameters can hold them."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLERS = ("ddim", "dpmsolver++")


@dataclass(frozen=True)
class Sampling:
    """How images are sampled, and at which step their features are read."""

    num_steps: int
    guidance_scale: float
    """Classifier-free guidance; 1 or less is none."""
    tapped_step: int
    """Step whose features are read, counted from the clean end; 1 is the last."""
    sampler: str = "ddim"
    """One of SAMPLERS: DDIM with eta 0, or DPM-Solver++(2M) (arXiv 2211.01095), which needs fewer steps."""
    timesteps: tuple[int, ...] = ()
    """With 'dpmsolver++': which `num_steps` timesteps it visits, falling, such as those of Align Your Steps (arXiv
    2404.14507); empty: those of DDIM, evenly spread."""
