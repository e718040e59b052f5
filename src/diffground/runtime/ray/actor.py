"""The actor that `diffground.runtime.ray.workers` starts on the machines of a Ray cluster."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch

from diffground.errors import UserError
from diffground.runtime.device import setup_torch
from diffground.runtime.memory import limit_memory
from diffground.runtime.workers import sendable


class Server:
    """The actor. All calls except `progress` run in one thread."""

    def __init__(self) -> None:
        self._held: tuple[int, Any] = (0, None)
        self._progress = (0, 0)

    def start(self, folder: str, num_threads: int, max_memory_gib: float, on_gpu: bool) -> UserError | None:
        """Change to `folder`, the working directory of the starting process. Returns the error if that fails.

        max_memory_gib: as limit_memory takes it; `on_gpu`: of the GPU that Ray has assigned.
        """
        try:
            os.chdir(folder)
        except OSError:
            return UserError(
                f"{folder} is not there on {platform.node()}, a machine of the Ray cluster; put the repository on a "
                "filesystem that all of them mount at the same path"
            )
        setup_torch(num_threads=num_threads)
        try:
            limit_memory(max_memory_gib, torch.device("cuda" if on_gpu else "cpu"))
        except UserError as error:
            return error
        return None

    def do(self, map_number: int, content: list[Any], i: int, item: Any) -> tuple[str, Any, int]:
        """("done", result, samples finished) or ("failed", error, samples finished).

        content: a reference to the pickled work, in the object store; it is loaded when `map_number` is a new one.
        i: number of the item.
        """
        import ray

        self._progress = (i, 0)
        try:
            if self._held[0] != map_number:
                self._held = (0, None)  # never two models in memory
                self._held = (map_number, ray.cloudpickle.loads(ray.get(content[0])))
            result = self._held[1](item, self._advance)
        except Exception as error:
            return "failed", sendable(error), self._progress[1]
        return "done", result, self._progress[1]

    def progress(self) -> tuple[int, int]:
        """Number of the current item, and how many of its samples are finished."""
        return self._progress

    def _advance(self, num: int) -> None:
        i, done = self._progress
        self._progress = (i, done + num)


def own_code() -> list[str]:
    """Folders of sys.path that hold no installed packages, first the one with this package: PYTHONPATH of a worker."""
    installed = Path(sysconfig.get_path("stdlib"))
    folders = [Path(__file__).parents[2], *map(Path, sys.path)]
    return list(
        dict.fromkeys(
            str(folder.resolve())
            for folder in folders
            if folder.is_dir() and "site-packages" not in folder.parts and not folder.is_relative_to(installed)
        )
    )
