"""Samples through a frozen network in batches that fit into memory."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from diffground.entry_point import is_out_of_memory
from diffground.errors import InfrastructureError, UserError, in_one_line
from diffground.runtime.memory import forget_peak, max_cpu_bytes, peak_bytes

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_NUM_MEASURED = 2
"""Batches of 1, 2, … samples whose memory says what a sample takes."""


def in_batches(
    items: Sequence[Item],
    compute: Callable[[Sequence[Item]], Result],
    *,
    batch_size: int,
    setting: str,
    lower: str,
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Each batch of consecutive `items` and what `compute` makes of it, in order.

    A batch has `batch_size` items, or fewer where they do not fit into memory: one for which there is no memory left is
    halved, with a warning, and computed again. With `runtime.max_memory_gib` on a CPU, the first two batches have 1 and
    2 items; from their memory follows how many fit. The smaller size stays for all later calls of this process with the
    same `setting`.

    Args:
        compute: depends on its items only, not on their batch, and changes no random state: it may be repeated.
        setting: parameter that says the batch size, e.g. 'generator.batch_size'.
        lower: what the user can lower where a single item does not fit, e.g. 'generator.image_size'.
    Raises: InfrastructureError where there is no memory for a batch of one, UserError where it takes more than
        `runtime.max_memory_gib`. Any other error of `compute` passes through.
    """
    room = _ROOMS.setdefault(setting, _Room(setting))
    start = 0
    while start < len(items):
        batch = items[start : start + room.size(batch_size)]
        done: list[Result] = []  # emptied by `yield`, so that the result is not held during the next batch
        try:
            room.before()
            done.append(compute(batch))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = in_one_line(error, limit=150)
            if len(batch) == 1:
                raise InfrastructureError(
                    f"{setting}: no memory left for one sample: {reason}; lower {lower}"
                ) from None
        if not done:  # outside of `except`: the error holds what the failed batch allocated
            room.halve(len(batch), f"out of memory ({reason})")
            continue
        room.after(len(batch), lower=lower)
        yield batch, done.pop()
        start += len(batch)


@contextmanager
def naming_what_to_lower(what: str, lower: str) -> Iterator[None]:
    """Turns an out-of-memory error into an InfrastructureError of one line: for what cannot be halved."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = in_one_line(error, limit=150)
        raise InfrastructureError(f"{what}: no memory left: {reason}; lower {lower}") from None


@dataclass
class _Room:
    """How many samples of a setting go through at once in this process."""

    setting: str
    largest: int | None = None
    """None: as many as asked for."""
    peaks: list[int] = field(default_factory=list)
    """Peak memory of the process, bytes, with 1, 2, … samples at once. Only with a limit on the CPU."""
    has_warned: bool = False

    def size(self, batch_size: int) -> int:
        size = batch_size if self.largest is None else min(batch_size, self.largest)
        return min(size, 1 + len(self.peaks)) if self._is_measuring() else size

    def before(self) -> None:
        if self._is_measuring():
            forget_peak()

    def after(self, num: int, *, lower: str) -> None:
        """A batch of `num` samples was computed."""
        limit = max_cpu_bytes()
        if not limit:
            return
        peak = peak_bytes()
        if not self.peaks and peak > limit:
            raise UserError(
                f"runtime.max_memory_gib is {_gib(limit)}, but the process takes {_gib(peak)} GiB with one sample at "
                f"once ({self.setting}); raise it, or lower {lower}"
            )
        if self._is_measuring() and num == 1 + len(self.peaks):  # the last batch may have fewer
            self.peaks.append(peak)
            if not self._is_measuring():
                self._fit(limit)
        elif peak > limit and num > 1:  # such as prompts with more words than the first ones
            self.halve(num, f"{_gib(peak)} GiB, more than runtime.max_memory_gib ({_gib(limit)})")
        elif peak > limit and not self.has_warned:
            self.has_warned = True
            logger.warning(
                f"{self.setting}: the process takes {_gib(peak)} GiB with one sample at once, more than "
                f"runtime.max_memory_gib ({_gib(limit)}): it does not limit what is kept besides the batch"
            )

    def halve(self, num: int, reason: str) -> None:
        """After a batch of `num` samples that did not fit."""
        self.largest = max(1, num // 2)
        logger.warning(f"{self.setting}: {reason}; {self.largest} samples at once from now on, instead of {num}")
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        if max_cpu_bytes():
            forget_peak()

    def _is_measuring(self) -> bool:
        return bool(max_cpu_bytes()) and len(self.peaks) < _NUM_MEASURED

    def _fit(self, limit: int) -> None:
        of_one, of_two = self.peaks
        if (a_sample := of_two - of_one) > 0:
            fitting = max(1, 1 + (limit - of_one) // a_sample)
            self.largest = fitting if self.largest is None else min(self.largest, fitting)
            logger.info(
                f"{self.setting}: at most {self.largest} samples at once: each takes {a_sample / 2**20:.0f} MiB of "
                f"runtime.max_memory_gib ({_gib(limit)})"
            )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.3g}"


_ROOMS: dict[str, _Room] = {}
"""Setting -> what is known of it in this process."""
