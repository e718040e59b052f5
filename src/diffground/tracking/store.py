"""The MLflow store: imported late, with short timeouts and without its log."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # the journal tries again: one attempt, and no long wait for a server that does not answer
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_SQLITE_TIMEOUT_S = 2.0
_WRONG_SCHEMA = "out-of-date database schema"  # of mlflow.store.db.utils, which has no error code of its own
_PASSWORD = re.compile(r"//[^/\s]+@")
_STORES_WITHOUT_SCHEME = ("", "databricks", "databricks-uc")


class UnavailableError(Exception):
    """The store takes nothing now. The message is one line to put after the URI: "is away (database is locked)"."""


def open_client(uri: str) -> Any:
    """The MlflowClient of the store. Raises: UnavailableError when it does not open."""
    import_mlflow()
    from mlflow.tracking import MlflowClient

    path = sqlite_path(uri)
    try:
        if path is None:
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):  # two processes cannot make its tables at the same time
            with closing(sqlite3.connect(path, timeout=_SQLITE_TIMEOUT_S)) as database:
                database.execute("begin immediate")  # fails in seconds where MLflow would try for minutes
                database.rollback()
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
    except Exception as error:
        if _WRONG_SCHEMA in str(error):
            raise UnavailableError(
                "has tables of another version of MLflow than the installed one; copy the database, then run "
                f"`mlflow db upgrade {uri}`, or install the newer MLflow that wrote it"
            ) from error
        raise UnavailableError(f"is away ({first_line(error)})") from error


def artifact_location(uri: str) -> str | None:
    """Folder mlruns next to an SQLite file; MLflow's default is in the current folder of the first stage."""
    path = sqlite_path(uri)
    return None if path is None else (path.resolve().parent / "mlruns").as_uri()


def import_mlflow() -> None:
    """Import it (seconds) with our settings; those of the environment have priority."""
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    import mlflow.tracking  # noqa: F401

    # they log every migration of a new store and every attempt to reach a server; we report a failure in one line
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def absolute_store(uri: str, *, root: Path) -> str:
    """`uri` of a tracking store, for use in any folder: a relative path of an SQLite file or a folder is below `root`.

    root: an absolute path. Servers, absolute paths and '' (no store) are returned as they are.
    """
    scheme, colon, place = uri.partition(":")
    if scheme.partition("+")[0] == "sqlite" and place.startswith("///") and place not in ("///", "///:memory:"):
        return f"{scheme}:///{root / place.removeprefix('///')}"
    if scheme == "file" and not place.startswith("/"):
        return (root / unquote(place)).as_uri()
    return uri if colon or uri in _STORES_WITHOUT_SCHEME else str(root / uri)


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite store; None for other stores."""
    scheme, separator, file = uri.partition("sqlite:///")
    return Path(file) if separator and not scheme and file else None


def without_password(uri: str) -> str:
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def first_line(error: BaseException) -> str:
    """Of its message, without the passwords of the addresses in it."""
    lines = _PASSWORD.sub("//", str(error)).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
