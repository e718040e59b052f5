"""`diffground sync`: deliver what stages could not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from diffground.errors import UserError
from diffground.tracking.delivery import deliver_all
from diffground.tracking.journal import num_refused, sessions
from diffground.tracking.run import store_of
from diffground.tracking.store import import_mlflow


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
    current = os.environ.get("MLFLOW_TRACKING_URI") or uri
    away = deliver_all(root, lambda recorded: store_of(recorded, current))
    left = len(sessions(root))
    if away:
        told = "; ".join(f"{place} is away ({reason})" for place, reason in away.items())
        raise UserError(f"{told}; {before - left} of {before} runs delivered, the others stay in {root}")
    return SyncSummary(num_delivered=before - left, num_left=left, num_refused=num_refused(root))
