"""Where and how fast a stage runs: section `runtime` of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffground.ranges import NonEmptyStr, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from diffground.runtime.instruction_set import InstructionSet


@dataclass(frozen=True)
class RuntimeConfig:
    """Where it runs. Nothing here changes a result beyond floating-point tolerance."""

    device: NonEmptyStr
    """'auto' takes a GPU when there is one; else 'cpu', 'cuda', 'cuda:1'."""
    num_threads: PositiveInt
    """CPU threads of torch, divided among the workers."""
    instruction_set: InstructionSet
    """Of the processor: 'native' is all that it has. 'avx2' and 'compatible' limit it, so that more machines compute
    the same bytes, at a cost (docs/mini_world.md); outputs made under another limit are made again."""
    num_workers: PositiveInt
    """Processes of a sharded stage and of Protocol I on the CPU; a GPU has one."""
    backend: Literal["local", "ray"]
    """'local': processes of this machine, on one GPU if there is one. 'ray': actors of a Ray cluster, one for each of
    its GPUs; the repository lies on a filesystem that its machines share."""
    ray_address: str
    """With 'ray': 'auto' or 'host:port' of the cluster that this machine belongs to; '': one on this machine, for the
    stage."""
    num_training_processes: NonNegativeInt
    """Processes, one GPU each, that share the batches of a training; 0: as many GPUs as there are and fit the batch,
    one process on the CPU. The segmenter's dropout differs between numbers of processes."""
    checkpoint_every_s: PositiveFloat
    """Seconds between two saved states of a training: at most this much is lost when it is killed."""
    max_memory_gib: NonNegativeFloat = 0.0
    """GiB that each process may use; 0: no limit. On a GPU, torch allocates no more of its memory, in trainings too. On
    the CPU (Linux), the resident memory of a process is measured with one and with two samples at once in a frozen
    model, and batches are cut so that they fit. Trainings, and what a stage keeps besides a batch, are not limited
    there."""
