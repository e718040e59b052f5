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
    guidance_interval: tuple[int, ...] = ()
    """First and last timestep, falling, at which there is guidance (arXiv 2404.07724); empty: all. Without it, a step
    costs one pass instead of two."""

    def is_guided(self, timestep: int) -> bool:
        """Whether the step at `timestep` has guidance."""
        high, low = self.guidance_interval or (timestep, timestep)
        return self.guidance_scale > 1 and low <= timestep <= high
