"""Run a command in its own process group, and end the whole group with it.

    python -I supervise.py GRACE_S COMMAND …

When standard input ends, because the parent closed it or died, the group gets SIGINT, and SIGKILL after
GRACE_S seconds. Exits with the command's code, 128 + N where signal N killed it. Standard library only: it starts fast.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

_POLL_S = 0.1


def main(grace_s: float, command: list[str]) -> int:
    for interrupt in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # only the end of its input ends this process
        signal.signal(interrupt, signal.SIG_IGN)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_heed_signals, restore_signals=True
    )
    threading.Thread(target=_stop_at_end_of_input, args=(process.pid, grace_s), daemon=True).start()
    code = process.wait()
    _signal_group(process.pid, signal.SIGKILL)  # processes that the command left running
    return 128 - code if code < 0 else code


def _heed_signals() -> None:
    for interrupt in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(interrupt, signal.SIG_DFL)


def _stop_at_end_of_input(group: int, grace_s: float) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    _signal_group(group, signal.SIGINT)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        time.sleep(_POLL_S)
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
