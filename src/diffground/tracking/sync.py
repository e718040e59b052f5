"""Deliver the journal: next to a running stage, at its end, and from `diffground sync`."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffground.errors import UserError
from diffground.tracking.delivery import deliver
from diffground.tracking.journal import Session, num_refused, sessions
from diffground.tracking.store import UnavailableError, first_line, import_mlflow, open_client, without_password

_INTERVAL_S, _LONGEST_PAUSE_S = 0.5, 60.0
_SLOW_S = 2.0
"""A server that took longer to say no is not asked again at the end."""
_ANSWER_S = 5.0
"""A server that has not taken the first entry so long after the last one is not waited for."""


class Sync:
    """Delivers the sessions below `root`, each to the store that it was written for."""

    def __init__(self, root: Path, uri: str, *, own: Session | None = None) -> None:
        """uri: the present store, with its password. own: the session of this process, which still grows."""
        self._root, self._uri, self._own = root, uri, own
        self._clients: dict[str, Any] = {}

    def __call__(self) -> dict[str, str]:
        """Deliver what no other process holds, in order. Returns: URI -> why that store takes nothing now."""
        problems: dict[str, str] = {}
        for session in sessions(self._root):
            if self._own is not None and session.key == self._own.key:
                self._deliver(self._own, problems, live=True)
            elif session.acquire():
                try:
                    self._deliver(session, problems, live=False)
                finally:
                    session.release()
        return problems

    def _deliver(self, session: Session, problems: dict[str, str], *, live: bool) -> None:
        begin, _ = next(session.entries(), (None, 0))
        if begin is None:  # killed before it wrote anything, or delivered by another process just now
            session.remove()
            return
        recorded = begin.get("uri")
        if recorded is None:
            problems[str(session.folder)] = "is of another version of diffground: run `diffground sync` of that one"
            return
        if recorded in problems:
            return
        try:
            if recorded not in self._clients:
                same = without_password(self._uri) == recorded
                self._clients[recorded] = open_client(self._uri if same else recorded)
            deliver(session, self._clients[recorded], live=live)
        except UnavailableError as error:
            problems[recorded] = str(error)


class BackgroundSync(threading.Thread):
    """Delivers while the stage runs, so that a slow or dead server takes no time from it; older sessions first."""

    def __init__(self, root: Path, session: Session, uri: str) -> None:
        super().__init__(name="mlflow-sync", daemon=True)
        self._session, self._uri = session, without_password(uri)
        self._sync = Sync(root, uri, own=session)
        self._stopping = threading.Event()
        self._problems: dict[str, str] = {}
        self._took_s = 0.0

    def finish(self) -> str | None:
        """Deliver the rest. Returns: None, or why it has to wait, in one line."""
        self._stopping.set()
        # a server is not waited for; a database may be about to make its tables, and must not be left at that
        self.join(_ANSWER_S if self._uri.startswith("http") else None)
        if self.is_alive() and not self._session.ids:
            return "is away (it does not answer)"
        self.join()
        if not self._session.folder.is_dir():
            return None
        self._session.release()
        return self._problems.get(self._uri) or next(iter(self._problems.values()), "takes nothing now")

    def run(self) -> None:
        pause_s = 0.0
        while True:
            stopping = self._stopping.wait(pause_s)
            if not (stopping and self._uri in self._problems and self._took_s > _SLOW_S):
                self._try()
            if stopping:
                return
            pause_s = min(max(2 * pause_s, 1.0), _LONGEST_PAUSE_S) if self._problems else _INTERVAL_S

    def _try(self) -> None:
        start = time.monotonic()
        try:
            self._problems = self._sync()
        except Exception as error:  # whatever it is, it must not end the stage, and the journal has everything
            self._problems = {"": f"is away ({first_line(error)})"}
        self._took_s = time.monotonic() - start


@dataclass(frozen=True)
class SyncSummary:
    """What `sync_journal` did."""

    num_delivered: int
    """Runs of stages that have arrived as a whole."""
    num_left: int
    """Runs that another process is at work on."""
    num_refused: int
    """Entries that the store will not take, of all times."""


def sync_journal(root: Path, *, uri: str) -> SyncSummary:
    """Deliver the journal `root`, each session to the store that it was written for.

    uri: the present store; where it is the recorded one, its password is used.
    Raises: UserError, one line, when a store is away; what has arrived until then has arrived.
    """
    before = len(sessions(root))
    if not before:
        return SyncSummary(0, 0, num_refused(root))
    import_mlflow()
    problems = Sync(root, os.environ.get("MLFLOW_TRACKING_URI") or uri)()
    left = len(sessions(root))
    if problems:
        told = "; ".join(f"{place} {reason}" for place, reason in problems.items())
        raise UserError(f"{told}; {before - left} of {before} runs delivered, the others stay in {root}")
    return SyncSummary(num_delivered=before - left, num_left=left, num_refused=num_refused(root))
