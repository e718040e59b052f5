"""Commands whose output is read line by line, and that end with the process that started them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

GRACE_S = 20.0
"""Time between SIGINT, after which a stage ends by itself, and SIGKILL; less than the 30 s that Prefect gives a run."""

_SUPERVISE = Path(__file__).with_name("supervise.py")


class Supervised:
    """One command in a session of its own. Its whole process group ends with `stop`, and with this process, however
    it dies: SIGINT first, SIGKILL after `grace_s`."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path | None, grace_s: float = GRACE_S
    ) -> None:
        """log: file for its output; None: `read` returns it."""
        with nullcontext(subprocess.PIPE) if log is None else log.open("w") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_SUPERVISE), str(grace_s), *command],
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )

    def read(self, on_line: Callable[[str], None]) -> None:
        """Call `on_line` with every line of both streams until they end."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            on_line(line.rstrip())

    def poll(self) -> int | None:
        """The exit code, 128 + N where signal N ended it; None while it runs."""
        return self._process.poll()

    def request_stop(self) -> None:
        """As `stop`, without waiting."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def stop(self) -> int:
        """End the command and wait for it. Returns: the exit code."""
        self.request_stop()
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code


class Commands:
    """Runs commands, also in several threads, and stops all of them together."""

    def __init__(self) -> None:
        self._running: set[Supervised] = set()
        self._stopped = False
        self._changing = threading.Lock()

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
        grace_s: float = GRACE_S,
    ) -> int:
        """Run `command`; `on_line` gets each line of its output. An exception, KeyboardInterrupt too, stops it first.

        Returns: the exit code, 128 + N where signal N ended it. Raises: RuntimeError after `stop`.
        """
        with self._changing:
            if self._stopped:
                raise RuntimeError("commands were stopped, so that no other one starts")
            process = Supervised(command, cwd=cwd, env=env, log=None, grace_s=grace_s)
            self._running.add(process)
        try:
            process.read(on_line)
        except BaseException:
            process.request_stop()
            with suppress(Exception):  # the last lines of the stopped command
                process.read(on_line)
            raise
        finally:
            code = process.stop()
            with self._changing:
                self._running.discard(process)
        return code

    def stop(self) -> None:
        """Stop all commands without waiting; no other one can start."""
        with self._changing:
            self._stopped = True
            for process in self._running:
                process.request_stop()
