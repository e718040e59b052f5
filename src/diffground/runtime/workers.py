"""Work divided among processes, for work that a second thread hardly speeds up.

What is sent either way is pickled by value, so nothing is left in shared memory. No worker outlives its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, TypeVar

import torch

from diffground.errors import InfrastructureError, UserError
from diffground.runtime.device import setup_torch
from diffground.runtime.fork_server import interrupts_held_back, start_fork_server
from diffground.runtime.memory import limit_memory

Item = TypeVar("Item")
Result = TypeVar("Result")

Advance = Callable[[int], None]
"""Called with the number of samples that were just finished."""
Work = Callable[[Item, Advance], Result]
"""What is done with an item. With several workers it is pickled, and so are items and results."""


def ignore(num: int) -> None:
    """An Advance that does nothing."""


class Workers:
    """Workers that do the same to many items. One worker is this process itself; several are additional processes.

    They start with the first item, stay for the next `map`, and end with the block:

        with make_workers(params.runtime, device) as workers:
            for result in workers.map(work, items, advance=progress.advance):
                ...
    """

    def __init__(self, *, num_workers: int = 1, num_threads: int = 1, max_memory_gib: float = 0.0) -> None:
        """
        Args:
            num_threads: of torch, divided among several workers; one worker keeps those of this process.
            max_memory_gib: as limit_memory takes it, of each of several workers, which compute on the CPU.
        """
        self._num_workers = num_workers
        self._threads_each = max(1, num_threads // num_workers)
        self._max_memory_gib = max_memory_gib
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def map(self, work: Work[Item, Result], items: Iterable[Item], *, advance: Advance = ignore) -> Iterator[Result]:
        """The result of every item, in order, while the next ones are worked on.

        An error of `work` is raised here and ends all workers. Raises: UserError for a worker that died.
        """
        if self._num_workers == 1:
            return (work(item, advance) for item in items)
        return self._map_in_processes(work, list(items), advance)

    def _map_in_processes(self, work: Work[Item, Result], items: Sequence[Item], advance: Advance) -> Iterator[Result]:
        """Hands one item at a time to each worker, and keeps results that come before their turn."""
        try:
            self._start(min(self._num_workers, len(items)))
            idle, left, early, turn = list(self._workers), list(enumerate(items))[::-1], dict[int, Result](), 0
            content = pickle.dumps(("work", work))
            for worker in idle:
                worker.send(content)
            while turn < len(items):
                while idle and left:
                    idle.pop().send(pickle.dumps(("item", left.pop())))
                for worker in _with_message(self._workers):
                    match worker.receive():
                        case "advanced", num:
                            advance(num)
                        case "failed", error:
                            raise error
                        case "done", (i, result):
                            early[i] = result
                            idle.append(worker)
                while turn in early:
                    yield early.pop(turn)
                    turn += 1
        except BaseException:
            self._stop()  # some still work on items whose results are no longer needed
            raise

    def _start(self, num_workers: int) -> None:
        start_fork_server([name for name in list(sys.modules) if name.startswith("diffground.")])
        with interrupts_held_back():
            while len(self._workers) < num_workers:
                self._workers.append(_Worker(num_threads=self._threads_each, max_memory_gib=self._max_memory_gib))

    def _stop(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()


class _Worker:
    """The parent's side of one process."""

    def __init__(self, *, num_threads: int, max_memory_gib: float) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, num_threads, max_memory_gib), daemon=True)
        self._process.start()
        theirs.close()  # so that the connection closes when the process ends

    def send(self, content: bytes) -> None:
        try:
            self.connection.send_bytes(content)
        except OSError:
            raise self._died() from None

    def receive(self) -> tuple[str, Any]:
        try:
            message: tuple[str, Any] = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise self._died() from None
        return message

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _died(self) -> UserError:
        self._process.join()
        killed = self._process.exitcode == -signal.SIGKILL
        reason = "was killed (out of memory?)" if killed else "died"
        return (InfrastructureError if killed else UserError)(
            f"a worker process {reason}, exit code {self._process.exitcode}; lower runtime.num_workers or the stage's "
            "batch_size, finished shards are kept"
        )


def _with_message(workers: Sequence[_Worker]) -> list[_Worker]:
    """Waits until at least one has sent something or ended."""
    ready = wait([worker.connection for worker in workers])
    return [worker for worker in workers if worker.connection in ready]


def _serve(connection: Connection, num_threads: int, max_memory_gib: float) -> None:
    """The worker's side: first the work arrives or another one replaces it, then numbered items."""
    end_with_parent_in_background()
    setup_torch(num_threads=num_threads)
    limit_memory(max_memory_gib, torch.device("cpu"))

    def tell(kind: str, value: Any) -> None:
        content = pickle.dumps((kind, value))
        try:
            connection.send_bytes(content)
        except OSError:
            os._exit(1)  # the parent no longer listens

    def advance(num: int) -> None:
        tell("advanced", num)

    work: Work[Any, Any] | None = None
    while True:
        try:
            content = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            match pickle.loads(content):
                case "work", work:
                    pass
                case "item", (i, item):
                    assert work is not None
                    tell("done", (i, work(item, advance)))
        except Exception as error:
            tell("failed", sendable(error))


def sendable(error: Exception) -> Exception:
    """For another process: `error` with its traceback as a note, which pickling drops, unless it is for the user."""
    if isinstance(error, UserError):
        return error
    note = f"in a worker process:\n{''.join(traceback.format_exception(error))}"
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note(note)
    return copy


def end_with_parent_in_background() -> None:
    """From now on this process, started by multiprocessing, ends as soon as its parent has, however that ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
