"""Progress of long loops: a bar in a terminal, an occasional line in a log."""

from __future__ import annotations

import multiprocessing
import sys
import time
from types import TracebackType

from tqdm import tqdm

from diffground.runtime.rank import is_main_process

_LOG_EVERY_S = 30.0
_SLOW = 0.1
"""Steps per second below which a line shows seconds per step."""
_JUDGED_FROM_S = 5.0
"""Time after the first step from which the time left is estimated."""


class Progress:
    """Counts `total` steps, `initial` of them done before. Shows rate and time left on stderr.

    with Progress(len(records), description="generate") as progress:
        progress.advance(32)
    """

    def __init__(self, total: int, *, description: str, initial: int = 0) -> None:
        self._total, self._description, self._initial = total, description, initial
        self._done = self._done_at_first = initial
        self._first_s: float | None = None
        """When the first step was done; it takes longer than the others, as it includes all that happens only once."""
        self._bar: tqdm | None = None
        self._silent = not is_main_process()
        self._logged = initial

    def __enter__(self) -> Progress:
        self._start_s = self._logged_s = time.monotonic()
        has_terminal = multiprocessing.parent_process() is None  # bars of several workers would overwrite each other
        if has_terminal and sys.stderr.isatty() and not self._silent:
            self._bar = tqdm(total=self._total, initial=self._initial, desc=self._description, dynamic_ncols=True)
        return self

    def advance(self, num: int = 1) -> None:
        self._done += num
        if self._first_s is None:
            self._first_s, self._done_at_first = time.monotonic(), self._done
        if self._bar is not None:
            self._bar.update(num)
        elif time.monotonic() - self._logged_s >= _LOG_EVERY_S:
            self._log()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._done > max(self._initial, self._logged):
            self._log()

    def _log(self) -> None:
        if self._silent:
            return
        self._logged, self._logged_s = self._done, time.monotonic()
        elapsed_s = max(self._logged_s - self._start_s, 1e-9)
        rate = (self._done - self._initial) / elapsed_s
        spent = tqdm.format_interval(elapsed_s)
        pace = f"{rate:.1f}/s" if rate >= _SLOW else f"{1 / rate:.0f} s each"
        line = f"{self._description}: {self._done}/{self._total}, {pace}, {spent} spent, {self._left()} left"
        # not to the log: like the bar, it needs no set-up
        print(line, file=sys.stderr, flush=True)

    def _left(self) -> str:
        """Time left, from the steps after the first one; '?' while these are too few to judge by."""
        num_left, num_judged = self._total - self._done, self._done - self._done_at_first
        judged_s = 0.0 if self._first_s is None else self._logged_s - self._first_s
        if num_left and (not num_judged or judged_s < _JUDGED_FROM_S):
            return "?"
        return tqdm.format_interval(num_left * judged_s / num_judged if num_left else 0)
