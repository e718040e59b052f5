"""Training scenes composed by several processes, while this one does other things."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from training_scenes import training_scene

from diffground.data.stickers.sprites import SpriteBook

_AT_ONCE = 64
_world: tuple[SpriteBook, dict[str, Any]]
"""Of a worker: what it composes scenes from."""


class SceneComposer:
    """Begins at once to compose the training scenes 0 to `num_scenes` - 1; what is composed waits in memory.

    Make it before the first use of a GPU: its processes are forks of this one.
    """

    def __init__(self, book: SpriteBook, params: dict[str, Any], *, num_scenes: int, num_workers: int) -> None:
        self._pool = multiprocessing.get_context("fork").Pool(num_workers, _begin, (book, params, os.getpid()))
        spans = [range(start, min(start + _AT_ONCE, num_scenes)) for start in range(0, num_scenes, _AT_ONCE)]
        self._composed = self._pool.imap(_compose, spans)

    def until(self, deadline_s: float) -> Iterator[tuple[np.ndarray, str]]:
        """Images uint8 (S, S, 3) and captions, in order. After `deadline_s` of time.monotonic() only what is there.

        The first ones are waited for, however long they take. Afterwards no process is left.
        """
        try:
            yield from self._composed.next()
            while True:
                yield from self._composed.next(timeout=max(0.0, deadline_s - time.monotonic()))
        except (StopIteration, multiprocessing.TimeoutError):
            pass
        self.stop()

    def stop(self) -> None:
        self._pool.terminate()
        self._pool.join()


def _begin(book: SpriteBook, params: dict[str, Any], parent: int) -> None:
    global _world
    _world = book, params
    os.nice(10)  # torch.compile's processes come first
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A killed process does not end its pool, whose workers would wait forever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _compose(span: range) -> list[tuple[np.ndarray, str]]:
    scenes = [training_scene(*_world, i) for i in span]
    return [(scene.image, words) for scene, words in scenes]
