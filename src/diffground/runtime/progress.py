"""Progress of long loops: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

from diffground.runtime.rank import is_main_process

_LOG_EVERY_S = 30.0


class Progress:
    """Counts `total` steps, `initial` of them done before. Shows rate and time left on stderr.

    with Progress(len(records), description="generate") as progress:
        progress.advance(32)
    """

    def __init__(self, total: int, *, description: str, initial: int = 0) -> None:
        self._total, self._description, self._initial = total, description, initial
        self._done = initial
        self._bar: tqdm | None = None
        self._silent = not is_main_process()

    def __enter__(self) -> Progress:
        self._start_s = self._logged_s = time.monotonic()
        if sys.stderr.isatty() and not self._silent:
            self._bar = tqdm(total=self._total, initial=self._initial, desc=self._description, dynamic_ncols=True)
        return self

    def advance(self, num: int = 1) -> None:
        self._done += num
        if self._bar is not None:
            self._bar.update(num)
        elif time.monotonic() - self._logged_s >= _LOG_EVERY_S:
            self._log()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._done > self._initial:
            self._log()

    def _log(self) -> None:
        if self._silent:
            return
        self._logged_s = time.monotonic()
        elapsed_s = max(self._logged_s - self._start_s, 1e-9)
        rate = (self._done - self._initial) / elapsed_s
        left = tqdm.format_interval((self._total - self._done) / rate) if rate else "?"
        spent = tqdm.format_interval(elapsed_s)
        line = f"{self._description}: {self._done}/{self._total}, {rate:.1f}/s, {spent} spent, {left} left"
        print(line, file=sys.stderr, flush=True)
