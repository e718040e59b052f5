"""Delivers the journal beside the stage, so that a slow or dead server takes no time from it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from diffground.tracking.delivery import deliver_all
from diffground.tracking.journal import Session
from diffground.tracking.store import Store, first_line

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_GATHER_S = 0.5
"""Entries of this time go together."""
_SLOW_S = 2.0
"""Who took longer to say no is not asked again at the end."""
_ANSWER_S = 5.0
"""A server that has not taken the first entry so long after the last one is left alone."""


class Forwarder(threading.Thread):
    """Delivers what is in the journal, what older stages left there first; after a failure tries again later."""

    def __init__(self, root: Path, session: Session, open_store: Callable[[str], Store], *, uri: str) -> None:
        """`uri`: what `session` was written for."""
        super().__init__(name="mlflow-journal", daemon=True)
        self._uri = uri
        self._root, self._session, self._open_store = root, session, open_store
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._away: dict[str, str] = {}
        self._took_s = 0.0

    def notify(self) -> None:
        """There is something new."""
        self._wake.set()

    def finish(self) -> str | None:
        """Deliver the rest. Returns: None, or why it has to wait, in one line."""
        self._stopping.set()
        self._wake.set()
        # a server is not waited for; a database may be about to make its tables, and must not be left at that
        self.join(_ANSWER_S if self._uri.startswith("http") else None)
        if self.is_alive() and self._session.folder.is_dir() and not self._session.progress().ids:
            return "it does not answer"
        self.join()
        if not self._session.folder.is_dir():
            return None
        self._session.release()
        return self._away.get(self._uri) or next(iter(self._away.values()), "it takes nothing now")

    def run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            self._wake.wait()
            self._wake.clear()
            last = self._stopping.is_set()
            if not (last and self._uri in self._away and self._took_s > _SLOW_S):
                self._try()
            if last:
                return
            self._stopping.wait(pause_s if self._away else _GATHER_S)
            if self._away:
                self._wake.set()
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                pause_s = _FIRST_PAUSE_S

    def _try(self) -> None:
        start = time.monotonic()
        try:
            self._away = deliver_all(self._root, self._open_store, own=self._session)
        except Exception as error:  # whatever it is, it must not end the stage, and the journal has everything
            self._away = {"": first_line(error)}
        self._took_s = time.monotonic() - start
