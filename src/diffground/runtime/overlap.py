"""Work of the processor while the next batch is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def finish_in_background(items: Iterable[Item], finish: Callable[[Item], Result]) -> Iterator[Result]:
    """`finish(item)` for each, in order: one thread does this while the next item is computed in the calling thread.

    At most two items are held. What `finish` raises is raised here.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        pending: Future[Result] | None = None
        for item in items:
            if pending is not None:
                yield pending.result()
            pending = thread.submit(finish, item)
        if pending is not None:
            yield pending.result()
