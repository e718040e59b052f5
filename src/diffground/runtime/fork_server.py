"""The process from which workers are forked. Imports no torch, so that it can be started before torch is imported."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker


def start_fork_server(modules: Sequence[str]) -> None:
    """Start the process from which workers are forked, and have it import `modules`, unless it runs already.

    Workers then start with these imports done, which take seconds. Started early, it imports them while this process
    does. It ends with this process, uses one thread and no GPU.
    """
    with interrupts_held_back():
        multiprocessing.set_forkserver_preload(list(modules))
        forkserver.ensure_running()


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, whose traceback they would print: this process ends them."""
    resource_tracker.ensure_running()  # the first process would start it, and that lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
