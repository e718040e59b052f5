"""Download one file: complete and with the right checksum, or not at all. Received bytes are kept for the next try."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from diffground.entry_point import is_full_disk
from diffground.errors import UserError, in_one_line
from diffground.runtime.progress import Progress

_CHUNK_BYTES = 2**20
_MB = 10**6
_TIMEOUT_S = 60.0
_RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True)
class RemoteFile:
    url: str
    checksum: str
    """'md5:<hex>', or 'sha256:<hex>', of which the first digits are enough."""
    size_mb: float
    """Megabytes (10^6 bytes), for messages only."""


def download(file: RemoteFile, path: Path) -> None:
    """Download `file` to `path`, or do nothing if it is there. A broken connection is resumed as long as it delivers
    bytes. Received bytes are in `path`.partial, from which the next call resumes.

    Raises: UserError when the address cannot be reached, and when the bytes are not those of the checksum.
    """
    if path.is_file():
        if not _matches(path, file.checksum):
            raise UserError(f"{path}: is not the published file ({file.checksum}); delete it and run this again")
        return
    partial = path.with_name(f"{path.name}.partial")
    while (broken := _receive(file.url, partial)) is not None:
        if not broken.got_bytes:
            kept = f"; {_size(partial) / _MB:.0f} MB are kept" if _size(partial) else ""
            raise UserError(
                f"{file.url} cannot be reached ({broken.text}); run this again later{kept}, "
                f"or place the file ({file.size_mb:.0f} MB, {file.checksum}) at {path} by hand and run this again"
            )
    if not _matches(partial, file.checksum):
        partial.unlink()
        raise UserError(f"{file.url}: not the published file ({file.checksum}); deleted, run this again")
    partial.replace(path)


@dataclass(frozen=True)
class _Broken:
    """Why a connection ended early, and whether it delivered anything."""

    text: str
    got_bytes: bool


def _receive(url: str, partial: Path) -> _Broken | None:
    """Append what is left of `url` to `partial`. Returns why the connection broke, or None at the end of the file."""
    start = _size(partial)
    headers = {"User-Agent": "diffground"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with urlopen(Request(url, headers=headers), timeout=_TIMEOUT_S) as response:
            _append(response, partial)
    except HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE and start:
            return None  # nothing is left to send; the checksum says whether that is right
        return _Broken(f"HTTP {error.code} {error.reason}", got_bytes=False)
    except (OSError, HTTPException) as error:
        if is_full_disk(error):
            raise
        text = in_one_line(getattr(error, "reason", error))
        return _Broken(text or type(error).__name__, got_bytes=_size(partial) > start)
    return None


def _append(response: HTTPResponse, partial: Path) -> None:
    """Raises: ConnectionError when the body ends before its announced length."""
    start = _size(partial) if response.status == 206 else 0  # 200: the server sends the file from its beginning
    length = response.length
    total_mb = (start + (length or 0)) // _MB
    partial.parent.mkdir(parents=True, exist_ok=True)
    with (
        partial.open("ab" if start else "wb") as out,
        Progress(total_mb, description=f"{partial.stem}, MB", initial=start // _MB) as progress,
    ):
        received = 0
        while chunk := response.read(_CHUNK_BYTES):
            out.write(chunk)
            progress.advance((start + received + len(chunk)) // _MB - (start + received) // _MB)
            received += len(chunk)
    if length is not None and received < length:
        raise ConnectionError(f"the connection ended after {received} of {length} bytes")


def _matches(path: Path, checksum: str) -> bool:
    algorithm, _, digits = checksum.partition(":")
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
            .hexdigest()
            .startswith(digits)
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
