"""Workers on a Ray cluster: the interface of `diffground.runtime.workers`, on as many machines and GPUs as there are.

One actor per worker. The work (with its loaded models) is put into Ray's object store once and loaded once by each;
then an actor has one item at a time. An item whose worker is lost is done again by another one. Workers read and write
files themselves, so the repository lies at the same path on every machine, on a filesystem that they share.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from diffground.errors import InfrastructureError, UserError, in_one_line
from diffground.runtime.instruction_set import limits
from diffground.runtime.ray.actor import Server, own_code
from diffground.runtime.ray.cluster import connect
from diffground.runtime.workers import Advance, Item, Result, Work, Workers, ignore

logger = logging.getLogger(__name__)

_MAX_LOSSES = 3
"""Number of workers that an item may lose in a row, and of starts that may fail in a row."""
_TICK_S = 1.0
_TELL_WAITING_S = 60.0
_START_TIMEOUT_S = 900.0
_WATCH = "watch"
"""Concurrency group of the calls that are answered while an item is worked on."""


class RayWorkers(Workers):
    """Workers of a Ray cluster. They start with the first item and end with the block, with a Ray that they started."""

    def __init__(
        self,
        *,
        num_workers: int = 1,
        num_threads: int = 1,
        max_memory_gib: float = 0.0,
        address: str = "",
        on_gpus: bool = False,
    ) -> None:
        """
        Args:
            num_workers: actors, which share `num_threads`; not read with `on_gpus`.
            num_threads: CPU threads of torch; with `on_gpus`, of each worker.
            max_memory_gib: as limit_memory takes it, of each worker, on its device.
            address: '' starts Ray on this machine only; 'auto' or 'host:port' is an existing cluster that this machine
                belongs to. A Ray that this process is already connected to is used as it is.
            on_gpus: one worker per GPU of the cluster.
        Raises: UserError when Ray is not installed, and for a Ray Client address, 'ray://…'.
        """
        super().__init__(num_workers=num_workers, num_threads=num_threads, max_memory_gib=max_memory_gib)
        if importlib.util.find_spec("ray") is None:
            raise UserError(
                "runtime.backend is 'ray', which is not installed; run `pip install 'diffground[ray]'` or set it to "
                "'local'"
            )
        if "://" in address:
            raise UserError(
                f"runtime.ray_address must be '', 'auto' or 'host:port', got '{address}'; run the stage on a "
                "machine of the cluster"
            )
        self._address, self._on_gpus = address, on_gpus
        if on_gpus:
            self._threads_each = num_threads
        self._actors: list[Any] = []
        self._num_maps, self._is_ours = 0, False

    def map(self, work: Work[Item, Result], items: Iterable[Item], *, advance: Advance = ignore) -> Iterator[Result]:
        """As Workers.map; a worker that is lost is replaced, and each sample is reported to `advance` once.

        Raises: UserError when the cluster cannot be reached, starts no worker, or loses `_MAX_LOSSES` workers in a row
        to the same item.
        """
        return self._map_on_ray(work, list(items), advance)

    def _map_on_ray(self, work: Work[Item, Result], items: Sequence[Item], advance: Advance) -> Iterator[Result]:
        if not items:
            return
        try:
            self._connect()
            self._num_maps += 1
            yield from _Round(self, work, items, advance).results()
        except BaseException:
            self._kill_actors()  # some still work on items whose results are no longer needed
            raise

    def _connect(self) -> None:
        num_local = torch.cuda.device_count() if self._on_gpus else self._num_workers
        self._is_ours |= connect(self._address, num_cpus=num_local * self._threads_each)
        import ray

        if self._on_gpus:
            self._num_workers = int(ray.cluster_resources().get("GPU", 0))
            if not self._num_workers:
                raise InfrastructureError(
                    "runtime.device is a GPU, but the Ray cluster has none; start Ray where there are GPUs"
                )

    def _start_actor(self) -> Any:
        import ray

        environment = {"PYTHONPATH": os.pathsep.join(own_code()), **limits()}
        kind = ray.remote(
            num_cpus=self._threads_each,  # Ray sets OMP_NUM_THREADS to it
            num_gpus=1 if self._on_gpus else 0,
            concurrency_groups={_WATCH: 1},
            runtime_env={"env_vars": environment},
        )(Server)
        actor = kind.remote()
        self._actors.append(actor)
        return actor

    def _drop_actor(self, actor: Any) -> None:
        import ray

        self._actors.remove(actor)
        ray.kill(actor)

    def _kill_actors(self) -> None:
        for actor in list(self._actors):
            self._drop_actor(actor)

    def _stop(self) -> None:
        if self._actors or self._is_ours:
            import ray

            if ray.is_initialized():
                self._kill_actors()
                if self._is_ours:
                    ray.shutdown()
        self._is_ours = False


# not Ray's ActorPool, which replaces no actor that died, nor max_restarts, which neither reports nor counts losses
@dataclass
class _Round:
    """One `map`."""

    pool: RayWorkers
    work: Any
    items: Sequence[Any]
    advance: Advance
    idle: list[Any] = field(default_factory=list)
    starting: dict[Any, Any] = field(default_factory=dict)
    """Call of `start` -> its actor."""
    running: dict[Any, tuple[Any, int]] = field(default_factory=dict)
    """Call of `do` -> its actor and the number of its item."""
    losses: Counter[int] = field(default_factory=Counter)
    told: Counter[int] = field(default_factory=Counter)
    num_failed_starts: int = 0

    def results(self) -> Iterator[Any]:
        import ray

        content = ray.put(ray.cloudpickle.dumps(self.work))
        left, early, turn = deque(range(len(self.items))), dict[int, Any](), 0
        self.idle = list(self.pool._actors)
        waiting_since_s = asked_s = told_s = time.monotonic()
        try:
            while turn < len(self.items):
                while self.idle and left:
                    actor, i = self.idle.pop(), left.popleft()
                    self.running[actor.do.remote(self.pool._num_maps, [content], i, self.items[i])] = (actor, i)
                self._start_actors(len(left))
                ready, _ = ray.wait([*self.running, *self.starting], timeout=_TICK_S)
                for call in ready:
                    if call in self.starting:
                        self._started(call)
                    elif (answer := self._answer(call, left)) is not None:
                        i, early[i] = answer
                while turn in early:
                    yield early.pop(turn)
                    turn += 1
                now_s = time.monotonic()
                if now_s - asked_s >= _TICK_S:
                    self._ask_how_far()
                    asked_s = time.monotonic()
                if self.running or self.idle:
                    waiting_since_s = told_s = now_s
                elif now_s - waiting_since_s > _START_TIMEOUT_S:
                    raise InfrastructureError(f"Ray started no worker within {_START_TIMEOUT_S:.0f} s; {self._needs()}")
                elif now_s - told_s > _TELL_WAITING_S:
                    logger.info(f"waiting for Ray to start a worker; {self._needs()}")
                    told_s = now_s
        except BaseException:
            self._end_calls()
            raise
        for actor in self.starting.values():  # Ray has found no room for them by now
            self.pool._drop_actor(actor)

    def _start_actors(self, num_left: int) -> None:
        wanted = min(self.pool._num_workers, num_left + len(self.running))
        while len(self.idle) + len(self.running) + len(self.starting) < wanted:
            actor = self.pool._start_actor()
            call = actor.start.remote(
                str(Path.cwd()), self.pool._threads_each, self.pool._max_memory_gib, self.pool._on_gpus
            )
            self.starting[call] = actor

    def _started(self, call: Any) -> None:
        import ray

        actor = self.starting.pop(call)
        try:
            error = ray.get(call)
        except ray.exceptions.RayError as reason:
            self.pool._drop_actor(actor)
            self.num_failed_starts += 1
            if self.num_failed_starts >= _MAX_LOSSES:
                raise InfrastructureError(
                    f"Ray could not start a worker, {_MAX_LOSSES} times in a row ({in_one_line(reason)}); see that "
                    "every machine of the cluster has the same Python packages and this folder"
                ) from None
            return
        if error:
            raise error
        self.num_failed_starts = 0
        self.idle.append(actor)

    def _answer(self, call: Any, left: deque[int]) -> tuple[int, Any] | None:
        """Number and result of an item; None when its worker was lost, and the item has to be repeated."""
        import ray

        actor, i = self.running.pop(call)
        try:
            kind, value, num_samples = ray.get(call)
        except ray.exceptions.RayError as error:
            self.pool._drop_actor(actor)
            self.losses[i] += 1
            name = getattr(self.items[i], "name", f"{i + 1} of {len(self.items)}")
            if self.losses[i] >= _MAX_LOSSES:
                raise InfrastructureError(
                    f"{_MAX_LOSSES} Ray workers in a row were lost at item {name} ({in_one_line(error)}); lower "
                    "runtime.num_workers or the stage's batch_size if memory ran out, finished shards are kept"
                ) from None
            logger.warning(f"a Ray worker was lost at item {name}, which is repeated")
            left.appendleft(i)
            return None
        if kind == "failed":
            raise value
        self._tell(i, num_samples)
        self.idle.append(actor)
        return i, value

    def _ask_how_far(self) -> None:
        """Report how many samples of the current items are finished."""
        import ray

        calls = [actor.progress.options(concurrency_group=_WATCH).remote() for actor, _ in self.running.values()]
        answered, _ = ray.wait(calls, num_returns=len(calls), timeout=_TICK_S) if calls else ([], [])
        for call in answered:
            try:
                self._tell(*ray.get(call))
            except ray.exceptions.RayError:
                continue  # its call of `do` reports that too

    def _tell(self, i: int, num_samples: int) -> None:
        if num_samples > self.told[i]:
            self.advance(num_samples - self.told[i])
            self.told[i] = num_samples

    def _end_calls(self) -> None:
        """Kill the working actors and wait for their end, so that nothing is written afterwards."""
        import ray

        for actor, _ in self.running.values():
            self.pool._drop_actor(actor)
        if self.running:
            ray.wait(list(self.running), num_returns=len(self.running), timeout=10 * _TICK_S)

    def _needs(self) -> str:
        import ray

        free = ray.available_resources()
        gpu = " and a GPU" if self.pool._on_gpus else ""
        return (
            f"it needs {self.pool._threads_each} CPUs{gpu} of one machine, free in the cluster are "
            f"{free.get('CPU', 0):.0f} CPUs and {free.get('GPU', 0):.0f} GPUs"
        )
