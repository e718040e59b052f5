"""The MLflow store: opened late, short of patience, and quiet."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_PATIENCE = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # the journal tries again: one attempt, and no long wait for a server that does not answer
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_SQLITE_TIMEOUT_S = 2.0
_STORES_WITHOUT_SCHEME = ("", "databricks", "databricks-uc")


class UnavailableError(Exception):
    """The store does not take anything now; the message is one line."""


class Store:
    """A store by its URI. `client` opens it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: Any = None

    def client(self) -> Any:
        """The MlflowClient. Raises: UnavailableError when the store does not open."""
        if self._client is None:
            try:
                with _alone(self.uri):
                    check_sqlite(self.uri)
                    self._client = open_client(self.uri)
            except Exception as error:
                raise UnavailableError(first_line(error)) from error
        return self._client

    def artifact_location(self) -> str | None:
        """Folder mlruns beside an SQLite file; MLflow alone would take one where the first stage happens to run."""
        path = sqlite_path(self.uri)
        return None if path is None else (path.resolve().parent / "mlruns").as_uri()


def open_client(uri: str) -> Any:
    import_mlflow()
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def import_mlflow() -> None:
    """Import it (seconds) with our settings, of which the environment's own go first."""
    for key, value in _PATIENCE.items():
        os.environ.setdefault(key, value)
    import mlflow.tracking  # noqa: F401

    # every migration of a new store, every attempt at a dead one, advice on models: what fails is told in one line
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def absolute_store(uri: str, *, root: Path) -> str:
    """`uri` of a tracking store, for use in any folder: a relative SQLite file or folder lies in `root`, an absolute
    path. Servers and absolute paths stay as they are; '' too, which names none."""
    scheme, colon, place = uri.partition(":")
    if scheme.partition("+")[0] == "sqlite" and place.startswith("///") and place not in ("///", "///:memory:"):
        return f"{scheme}:///{root / place.removeprefix('///')}"
    if scheme == "file" and not place.startswith("/"):
        return (root / unquote(place)).as_uri()
    return uri if colon or uri in _STORES_WITHOUT_SCHEME else str(root / uri)


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite store; None for another one."""
    scheme, separator, file = uri.partition("sqlite:///")
    return Path(file) if separator and not scheme and file else None


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """One process at a time opens an SQLite store: of two that make its tables at once, one fails."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_sqlite(uri: str) -> None:
    """Find out in seconds that a database is locked or cannot be there; MLflow would try for minutes.

    Raises: OSError or sqlite3.Error.
    """
    path = sqlite_path(uri)
    if path is None:
        return
    with closing(sqlite3.connect(path, timeout=_SQLITE_TIMEOUT_S)) as database:
        database.execute("begin immediate")
        database.rollback()


def without_password(uri: str) -> str:
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
