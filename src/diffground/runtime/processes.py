"""One training in several processes, which torch.distributed connects: how many, how they start and how they end.

`accelerate launch` and `torchrun` may start them too; `run_in_processes` is what a stage does by itself.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist

from diffground.errors import InfrastructureError, UserError
from diffground.runtime.config import RuntimeConfig
from diffground.runtime.device import pick_device
from diffground.runtime.fork_server import interrupts_held_back
from diffground.runtime.rank import is_main_process
from diffground.runtime.workers import end_with_parent_in_background, sendable

_SAME_CAUSE_S = 0.5
"""Errors so soon after the first may be its cause: what is sent first is not always read first."""


def num_training_processes(runtime: RuntimeConfig, *, batch_size: int, accumulation_steps: int) -> int:
    """How many processes share a batch, each with `accumulation_steps` equal parts of it, one after another.

    As `runtime` says; where that is 0, as many GPUs as there are and fit the batch, on the CPU 1.
    Raises: UserError when there are not so many GPUs, and for a batch that cannot be divided so.
    """
    device = pick_device(runtime.device)
    one_gpu = device.type == "cpu" or device.index is not None
    num_gpus = 1 if one_gpu else torch.cuda.device_count()
    num = runtime.num_training_processes
    if num == 0:
        num = next((n for n in range(num_gpus, 1, -1) if batch_size % (n * accumulation_steps) == 0), 1)
    if device.type == "cuda" and num > num_gpus:
        raise UserError(
            f"runtime.num_training_processes must be at most the number of GPUs of runtime.device '{runtime.device}' "
            f"({num_gpus}), got {num}"
        )
    samples_a_part(batch_size, num_processes=num, accumulation_steps=accumulation_steps)
    return num


def samples_a_part(batch_size: int, *, num_processes: int, accumulation_steps: int) -> int:
    """Samples that go through the model at once. Raises: UserError when a batch cannot be divided so."""
    if batch_size % (num_processes * accumulation_steps):
        raise UserError(
            f"batch_size must be a multiple of training processes x gradient_accumulation_steps "
            f"({num_processes} x {accumulation_steps}), got {batch_size}; change one of the three"
        )
    return batch_size // (num_processes * accumulation_steps)


def run_in_processes(num: int, target: Callable[..., None], *args: Any) -> None:
    """Call `target(*args)` in `num` new processes, connected; return when all of them have.

    `target` and `args` are pickled. The first error ends all of them and is raised here. Only the process that is
    `is_main_process` writes to stdout and stderr. Raises: UserError for a process that died.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    with interrupts_held_back():
        members = [_Member(rank, num, store.port, (target, args)) for rank in range(num)]
    try:
        running, failed = list(members), list[_Member]()
        while running:
            timeout = max(0.0, failed[0].seen_s + _SAME_CAUSE_S - time.monotonic()) if failed else None
            ready = wait([member.connection for member in running], timeout)
            if not ready:
                break
            ended = [member for member in running if member.connection in ready]
            running = [member for member in running if member not in ended]
            failed += [member for member in ended if member.has_failed()]
        if failed:
            raise min(failed, key=lambda member: member.failed_s).error
    finally:
        for member in members:
            member.kill()


class _Member:
    """The parent's side of one process."""

    # not torch.multiprocessing.start_processes: it raises the text of a traceback, never the error itself (a UserError)

    error: Exception
    failed_s: float
    """When it failed, as it reported; one that died could not report and counts as the first."""
    seen_s: float

    def __init__(self, rank: int, num: int, port: int, work: tuple[Callable[..., None], tuple[Any, ...]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, rank, num, port, work), daemon=True)
        self._process.start()
        theirs.close()

    def has_failed(self) -> bool:
        """Read how it ended."""
        self.seen_s = time.monotonic()
        try:
            message = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            reason = "was killed (out of memory?)" if code == -signal.SIGKILL else "died"
            self.failed_s = 0.0
            kind = InfrastructureError if code == -signal.SIGKILL else UserError
            self.error = kind(f"a training process {reason}, exit code {code}; run the same command to resume")
            return True
        if message is None:
            return False
        self.failed_s, self.error = message
        return True

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(
    connection: Connection, rank: int, num: int, port: int, work: tuple[Callable[..., None], tuple[Any, ...]]
) -> None:
    end_with_parent_in_background()
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num),
        "LOCAL_WORLD_SIZE": str(num),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    if not is_main_process():
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    target, args = work
    message: tuple[float, Exception] | None = None
    try:
        target(*args)
        if dist.is_initialized():
            dist.destroy_process_group()
    except Exception as error:
        message = (time.monotonic(), sendable(error))
    connection.send_bytes(pickle.dumps(message))
    if message is not None:
        time.sleep(60)  # leaving now would make the others fail too; the parent ends all
