"""A training that can be killed: weights, their average, the optimizer and the clock, saved and resumed together."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from common import load_state, save_state
from torch import Tensor, nn

_SUSPENDED_S = 10.0  # a longer step was interrupted; the pause is not training time


class TrainingState:
    """Resumes from `path` when it exists.

    `step` counts optimizer steps, `elapsed_s` is training time over all sittings.
    `average`: name -> moving average of each parameter; the rate starts low and rises to `ema_decay`.
    """

    def __init__(self, path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, *, ema_decay: float) -> None:
        self._path, self._module, self._optimizer, self._ema_decay = path, module, optimizer, ema_decay
        self._weights = dict(module.named_parameters())
        self.average = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self.step, self.elapsed_s = 0, 0.0
        if path.exists():
            self._resume()
        self._tick = time.monotonic()

    def descend(self, loss: Tensor, *, max_grad_norm: float) -> None:
        """One optimizer step. Nothing here waits for the device."""
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._weights.values(), max_grad_norm)
        self._optimizer.step()
        self.step += 1
        decay = min(self._ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), [w.detach() for w in self._weights.values()], 1 - decay)
        now = time.monotonic()
        self.elapsed_s += min(now - self._tick, _SUSPENDED_S)
        self._tick = now

    def save(self) -> None:
        """Write everything atomically; the time that this takes is not training time."""
        tensors = {f"model.{name}": tensor for name, tensor in self._module.state_dict().items()}
        tensors |= {f"ema.{name}": tensor for name, tensor in self.average.items()}
        for name, weight in self._weights.items():
            slots = self._optimizer.state[weight]
            tensors |= {f"{slot}.{name}": slots[slot] for slot in ("exp_avg", "exp_avg_sq") if slot in slots}
        save_state(self._path, tensors, step=self.step, elapsed_s=self.elapsed_s)
        self._tick = time.monotonic()

    @torch.no_grad()
    def take_average(self) -> None:
        """Put the averaged weights into the module: at the end, before it is exported."""
        for name, weight in self._weights.items():
            weight.copy_(self.average[name])

    def _resume(self) -> None:
        saved, numbers = load_state(self._path)
        self.step, self.elapsed_s = int(numbers["step"]), numbers["elapsed_s"]
        self._module.load_state_dict({k.removeprefix("model."): v for k, v in saved.items() if k.startswith("model.")})
        # torch keeps the step of these on the parameter's device and cannot count it elsewhere
        on_device = any(group.get("fused") or group.get("capturable") for group in self._optimizer.param_groups)
        for name, weight in self._weights.items():
            self.average[name].copy_(saved[f"ema.{name}"])
            if f"exp_avg.{name}" in saved:
                self._optimizer.state[weight] = {
                    "step": torch.tensor(float(self.step), device=weight.device if on_device else "cpu"),
                    "exp_avg": saved[f"exp_avg.{name}"].to(weight.device),
                    "exp_avg_sq": saved[f"exp_avg_sq.{name}"].to(weight.device),
                }
