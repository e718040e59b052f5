"""What all trainings share: the order of samples, the optimizer steps, the curve of the loss.

A step uses the same samples and the same random choices for any number of processes and parts: every process makes all
choices for the whole batch, from one seed. Two things do depend on that number: a model's own dropout, and batch norm
where a process has its share of the batch in several parts (it normalises each, but over all processes).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from diffground.errors import UserError
from diffground.runtime.processes import samples_a_part
from diffground.runtime.progress import Progress
from diffground.training.batch_norm import synchronise_batch_norm
from diffground.training.resume import TrainingState, Unfinished

LOG_EVERY = 50
"""Iterations between two points of the loss curve."""

OnPoint = Callable[[int, float], None]
"""Takes the iteration and the mean loss of a point of the curve, while the training runs."""


class ShuffledBatches:
    """Endless batches of exactly `batch_size` indices; every sample comes once before any comes again."""

    def __init__(self, num_samples: int, *, batch_size: int, generator: torch.Generator) -> None:
        self._num_samples, self._batch_size, self._generator = num_samples, batch_size, generator
        self.queue: list[int] = []
        """Indices that are drawn but not yet used."""

    def __next__(self) -> list[int]:
        while len(self.queue) < self._batch_size:
            self.queue += torch.randperm(self._num_samples, generator=self._generator).tolist()
        batch, self.queue = self.queue[: self._batch_size], self.queue[self._batch_size :]
        return batch


@dataclass
class LossCurve:
    """Mean loss of every LOG_EVERY iterations, and of those left over at the end."""

    iterations: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    on_point: InitVar[OnPoint | None] = None

    def __post_init__(self, on_point: OnPoint | None) -> None:
        self.recent: list[Tensor] = []
        """The losses since the last point."""
        self._on_point = on_point

    def add(self, loss: Tensor, *, iteration: int, last: bool) -> None:
        """Take the loss, a scalar on any device, of `iteration`, counted from 1; it is read off only for a point."""
        self.recent.append(loss.detach())
        if iteration % LOG_EVERY == 0 or last:
            self.iterations.append(iteration)
            self.losses.append(float(torch.stack(self.recent).mean()))
            self.recent = []
            if self._on_point is not None:
                self._on_point(iteration, self.losses[-1])


class Task(nn.Module, ABC):
    """What is trained on what; holds all trained weights. Its forward is the loss of a part of a batch:

    forward(part, totals) is a float scalar, the part's share of the loss of the batch, so that the sum over all parts
    is that loss. Each of its T terms is a mean over elements (found objects, say) of which parts have unequally many:
    a part's sum is divided by those of the whole batch, `totals`, float (T,).
    """

    @abstractmethod
    def draw(self, indices: list[int], generator: torch.Generator) -> Any:
        """All that is random in a step on the samples `indices`; the same in every process."""

    @abstractmethod
    def load(self, drawn: Any, rows: slice) -> Any:
        """The part of the batch with these rows, on the training device."""

    @abstractmethod
    def count(self, part: Any) -> Tensor:
        """Over how many elements of `part` each term of the loss is a mean, float (T,)."""


@dataclass(frozen=True)
class Execution:
    """How a training is carried out. In several processes, all call `train` with the same."""

    mixed_precision: str = "none"
    """'none', 'bf16' or 'fp16' (GPU only): of the model; the loss and the weights stay float32."""
    accumulation_steps: int = 1
    """Parts, one after another, of each process's share of a batch."""
    unfinished: Unfinished | None = None
    """Where the training saves its state and finds that of an earlier run; None: no state is read or saved."""
    on_point: OnPoint | None = None
    """Called with every point of the curve, in the main process."""

    def accelerator(self, device: torch.device) -> Accelerator:
        """Raises: UserError for fp16 on the CPU."""
        if self.mixed_precision == "fp16" and device.type == "cpu":
            raise UserError("mixed_precision must be 'none' or 'bf16' on the CPU, got 'fp16'")
        mixed_precision = "no" if self.mixed_precision == "none" else self.mixed_precision
        if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision:
            AcceleratorState._reset_state()  # it holds for the whole process; trainings may differ
        return Accelerator(
            cpu=device.type == "cpu",
            device_placement=False,  # its choice is the first GPU
            mixed_precision=mixed_precision,
            gradient_accumulation_steps=self.accumulation_steps,
        )


def train(
    task: Task,
    optimizer: torch.optim.Optimizer,
    *,
    set_rates: Callable[[int], None],
    num_samples: int,
    iterations: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    description: str,
    max_gradient_norm: float | None = None,
    execution: Execution | None = None,
) -> LossCurve:
    """Train the weights of `task` in place on `device`, and leave it in evaluation mode.

    set_rates: sets the learning rates of `optimizer` for an iteration, counted from 1.
    seed: of sample order and the task's draws; torch's global generator is as before afterwards.
    Raises: UserError when `batch_size` cannot be divided among processes and parts, and when these find different
    states of an earlier run.
    """
    execution = execution or Execution()
    accelerator = execution.accelerator(device)
    num_processes, num_parts = accelerator.num_processes, accelerator.gradient_accumulation_steps
    size = samples_a_part(batch_size, num_processes=num_processes, accumulation_steps=num_parts)
    first = accelerator.process_index * num_parts * size
    rows = [slice(start, start + size) for start in range(first, first + num_parts * size, size)]
    generator = torch.Generator().manual_seed(seed)
    run = _Run(
        task=task,
        optimizer=optimizer,
        generator=generator,
        batches=ShuffledBatches(num_samples, batch_size=batch_size, generator=generator),
        scaler=accelerator.scaler,
        device=device,
        curve=LossCurve(on_point=execution.on_point if accelerator.is_main_process else None),
    )
    if num_processes > 1:
        synchronise_batch_norm(task, device)
    task.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        model, stepper = accelerator.prepare(task, optimizer)
        _restore(run, execution.unfinished, accelerator)
        with Progress(iterations, description=description, initial=run.iteration) as progress:
            for iteration in range(run.iteration + 1, iterations + 1):
                # no torch scheduler: LambdaLR rounds 13 of the segmenter's 800 rates differently, in the last bit
                set_rates(iteration)
                if num_processes > 1:
                    torch.manual_seed(hash((seed, iteration, accelerator.process_index)))  # own dropout per process
                drawn = task.draw(next(run.batches), generator)
                parts = [task.load(drawn, part_rows) for part_rows in rows]
                totals = accelerator.reduce(torch.stack([task.count(part) for part in parts]).sum(dim=0), "sum")
                loss = torch.zeros((), device=device)
                for part in parts:
                    with accelerator.accumulate(model):
                        share = model(part, totals)
                        # both accumulation and the exchange of gradients take a mean, where this is a sum
                        accelerator.backward(share * (num_parts * num_processes))
                        if max_gradient_norm is not None and accelerator.sync_gradients:
                            accelerator.clip_grad_norm_(task.parameters(), max_gradient_norm)
                        stepper.step()
                        stepper.zero_grad()
                    loss = loss + share.detach()
                run.iteration = iteration
                run.curve.add(accelerator.reduce(loss, "sum"), iteration=iteration, last=iteration == iterations)
                progress.advance()
                if accelerator.is_main_process:
                    run.save(execution.unfinished, ended=iteration == iterations)
    task.eval()
    return run.curve


def _restore(run: _Run, unfinished: Unfinished | None, accelerator: Accelerator) -> None:
    """Resume from the state of an earlier run, if there is one: all processes or none."""
    if unfinished is None:
        return
    if accelerator.num_processes == 1:
        run.restore(unfinished)
        return
    [unfinished.fingerprint] = broadcast_object_list([unfinished.fingerprint])
    with accelerator.main_process_first():  # it deletes a state that cannot be used
        run.restore(unfinished)
    iterations = accelerator.gather(torch.tensor([run.iteration], device=run.device)).tolist()
    if min(iterations) != max(iterations):
        raise UserError(
            f"{unfinished.folder}: all training processes must find the same state, they found those of iterations "
            f"{min(iterations)} and {max(iterations)}; put the repository on a filesystem that all machines share"
        )


@dataclass
class _Run:
    """All of a training that changes from one iteration to the next."""

    task: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    batches: ShuffledBatches
    scaler: torch.amp.GradScaler | None
    device: torch.device
    curve: LossCurve
    iteration: int = 0
    """The last completed one."""

    def save(self, unfinished: Unfinished | None, *, ended: bool) -> None:
        """Save the state when one is due, and at the end: a stage with several trainings repeats no finished one."""
        if unfinished is None or not (ended or unfinished.is_due()):
            return
        tensors = {f"task.{name}": tensor for name, tensor in self.task.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": tensor for name, tensor in moments.items()}
        tensors["samples"] = self.generator.get_state()
        tensors["dropout"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["dropout_cuda"] = torch.cuda.get_rng_state(self.device)
        tensors["queue"] = torch.tensor(self.batches.queue, dtype=torch.int64)
        tensors["recent"] = torch.stack(self.curve.recent) if self.curve.recent else torch.zeros(0)
        values = {"iteration": self.iteration, "iterations": self.curve.iterations, "losses": self.curve.losses}
        if self.scaler is not None:
            values["scaler"] = self.scaler.state_dict()
        unfinished.save(TrainingState(tensors=tensors, values=values))

    def restore(self, unfinished: Unfinished) -> None:
        """Resume from the state of an earlier run, if there is one."""
        state = unfinished.load()
        if state is None:
            return
        tensors, values = state.tensors, state.values
        self.task.load_state_dict(
            {name.removeprefix("task."): tensor for name, tensor in tensors.items() if name.startswith("task.")}
        )
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, i, moment = name.split(".")
                weight = weights[int(i)]
                if tensor.shape == weight.shape:  # laid out in memory like its weight, as a fused optimizer expects
                    tensor = torch.empty_like(weight).copy_(tensor)
                moments.setdefault(int(i), {})[moment] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.generator.set_state(tensors["samples"])
        torch.set_rng_state(tensors["dropout"])
        if "dropout_cuda" in tensors:
            torch.cuda.set_rng_state(tensors["dropout_cuda"], self.device)
        self.batches.queue = tensors["queue"].tolist()
        self.curve.iterations, self.curve.losses = values["iterations"], values["losses"]
        self.curve.recent = list(tensors["recent"].to(self.device))
        if self.scaler is not None:
            self.scaler.load_state_dict(values["scaler"])
        self.iteration = values["iteration"]
