"""The exceptions that mean: no bug."""

from __future__ import annotations


class UserError(Exception):
    """Bad input. Its message is one line: name, rule, value received, next step. Entry points exit with code 2."""


class InfrastructureError(UserError):
    """The machine failed, not the input: a killed worker, no memory left. The same command may well succeed later, so
    entry points exit with code 75, EX_TEMPFAIL of sysexits.h."""


def in_one_line(error: object, *, limit: int | None = 300) -> str:
    """What an exception of another library says, without line ends; at most `limit` characters of it."""
    return " ".join(str(error).split())[:limit]
