"""The committed verdicts of a profile."""

from __future__ import annotations

from pathlib import Path

from diffground.data.review import Review, read_review
from diffground.errors import UserError
from diffground.reproduction import paths

_BEFORE = Path("review")
"""Where verdicts on the test set were, before there were two kinds of verdicts."""


def review_of(folder: Path, profile: str) -> Review:
    """The verdicts in `folder`, one of paths.TEST_REVIEWS and paths.SYNTHETIC_REVIEWS; empty where there is no file.

    Raises: UserError as read_review does, and for a file at the place of earlier versions, which nothing reads.
    """
    before, now = _BEFORE / f"{profile}.csv", paths.TEST_REVIEWS / f"{profile}.csv"
    if before.is_file():
        raise UserError(f"{before}: verdicts on the test set are read from {now}; move the file there")
    return read_review(folder / f"{profile}.csv")
