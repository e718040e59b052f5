"""Deliver the journal: next to a running stage, at its end, and from `diffground sync`."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from diffground.errors import UserError
from diffground.tracking.delivery import deliver
from diffground.tracking.journal import Session, num_refused, sessions
from diffground.tracking.store import UnavailableError, first_line, open_client, without_password

_INTERVAL_S, _LONGEST_PAUSE_S = 0.5, 60.0
_SLOW_S = 2.0
"""A server that failed after a longer time is not tried again at the end."""
_ANSWER_S = 5.0
"""How long the end of a stage waits for a server that has not taken the first entry."""


class BackgroundSync(threading.Thread):
    """Delivers while the stage runs, so that a slow or dead server takes no time from it; older sessions first."""

    def __init__(self, root: Path, session: Session, uri: str) -> None:
        super().__init__(name="mlflow-sync", daemon=True)
        self._root, self._session, self._uri = root, session, uri
        self._recorded = without_password(uri)
        self._stopping = threading.Event()
        self._problems: dict[str, str] = {}
        self._took_s = 0.0

    def finish(self) -> str | None:
        """Deliver the rest. Returns: None, or why it has to wait, in one line."""
        self._stopping.set()
        # only a server can leave a call without an answer; a database that is making its tables must not be interrupted
        self.join(_ANSWER_S if self._recorded.startswith("http") else None)
        if self.is_alive() and not self._session.ids:
            return "is away (it does not answer)"
        self.join()
        if not self._session.folder.is_dir():
            return None
        self._session.release()
        return self._problems.get(self._recorded) or next(iter(self._problems.values()), "takes nothing now")

    def run(self) -> None:
        pause_s = 0.0
        while True:
            stopping = self._stopping.wait(pause_s)
            if not (stopping and self._recorded in self._problems and self._took_s > _SLOW_S):
                self._try()
            if stopping:
                return
            pause_s = min(max(2 * pause_s, 1.0), _LONGEST_PAUSE_S) if self._problems else _INTERVAL_S

    def _try(self) -> None:
        start = time.monotonic()
        try:
            self._problems = _deliver_all(self._root, self._uri, own=self._session)
        except Exception as error:  # no error of tracking may end the stage, and the journal has everything
            self._problems = {"": f"is away ({first_line(error)})"}
        self._took_s = time.monotonic() - start


class SyncSummary(NamedTuple):
    """Numbers of stage runs delivered, of runs that another process writes or sends, and of entries ever refused."""

    num_delivered: int
    num_left: int
    num_refused: int


def sync_journal(root: Path, *, uri: str) -> SyncSummary:
    """Deliver the journal `root`, each session to the store that it was written for.

    uri: the present store; MLFLOW_TRACKING_URI overrides it. Its password is used where it is the recorded store.
    Raises: UserError, one line, when a store is away; what was delivered before stays delivered.
    """
    before = len(sessions(root))
    problems = _deliver_all(root, os.environ.get("MLFLOW_TRACKING_URI") or uri)
    left = len(sessions(root))
    if problems:
        reasons = "; ".join(f"{place} {reason}" for place, reason in problems.items())
        raise UserError(f"{reasons}; {before - left} of {before} runs delivered, the others stay in {root}")
    return SyncSummary(num_delivered=before - left, num_left=left, num_refused=num_refused(root))


def _deliver_all(root: Path, uri: str, *, own: Session | None = None) -> dict[str, str]:
    """Deliver the sessions that no other process holds, in order. Returns: URI -> why that store takes nothing now.

    uri: the present store, with its password. own: the session of this process, which still grows.
    """
    problems: dict[str, str] = {}
    for session in sessions(root):
        if own is not None and session.key == own.key:
            _deliver_one(own, uri, problems, live=True)
        elif session.acquire():
            try:
                _deliver_one(session, uri, problems, live=False)
            finally:
                session.release()
    return problems


def _deliver_one(session: Session, uri: str, problems: dict[str, str], *, live: bool) -> None:
    begin, _ = next(session.entries(), (None, 0))
    if begin is None:  # killed before it wrote anything, or delivered by another process just now
        session.remove()
        return
    recorded = begin.get("uri")
    if recorded is None:
        problems[str(session.folder)] = "is of another version of diffground: run `diffground sync` of that version"
    elif recorded not in problems:
        try:
            client = open_client(uri if without_password(uri) == recorded else recorded)
            deliver(session, client, live=live)
        except UnavailableError as error:
            problems[recorded] = str(error)
