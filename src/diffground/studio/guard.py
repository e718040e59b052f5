"""What the Studio's server refuses whoever asks, and the headers of its answers."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = {
    # the page loads nothing from other servers: Gradio's page names some
    "content-security-policy": "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; frame-ancestors 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_MAX_REQUEST_BYTES = 2**20
"""Of a request that is no upload: texts, numbers and the names of uploaded files."""
_FETCHING = ("/gradio_api/proxy=", "/proxy=")
"""Paths with which Gradio's server would fetch from another server."""


class Guard:
    """ASGI middleware. A request may name only files that were uploaded. On a loopback address it also refuses requests
    with the name of another host: a page of another site whose name was made to point here (DNS rebinding)."""

    def __init__(self, app: App, *, host: str, uploads: Path) -> None:
        """uploads: the folder of uploaded files and results."""
        self._app, self._uploads = app, uploads.resolve()
        self._hosts = {host, "localhost", "127.0.0.1", "::1"} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._hosts is not None and _host_of(scope) not in self._hosts:
            await _refuse(send, 421, "this server answers under its own address only")
            return
        if _fetches(scope["path"]):
            await _refuse(send, 403, "this server fetches nothing from other servers")
            return

        if scope["method"] == "POST" and not scope["path"].endswith("/upload"):
            body = await _read(receive)
            if body is None:
                await _refuse(send, 413, "the request is too long")
                return
            if any(not self._is_uploaded(path) for path in _files_named_in(body)):
                await _refuse(send, 403, "a request may name only files that were uploaded")
                return
            receive = _replayed(body, receive)

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _is_uploaded(self, path: str) -> bool:
        try:
            return Path(path).is_absolute() and Path(path).resolve().is_relative_to(self._uploads)
        except (OSError, ValueError):
            return False


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host_of(scope: Scope) -> str:
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _fetches(path: str) -> bool:
    path = unquote(path).lower()
    _, is_file, name = path.partition("/file=")
    return path.startswith(_FETCHING) or (bool(is_file) and "://" in name.replace(":/", "://", 1))


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None for one that is too long."""
    body, is_more = b"", True
    while is_more:
        message = await receive()
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
        if len(body) > _MAX_REQUEST_BYTES:
            return None
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, for whoever reads it next."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def again() -> MutableMapping[str, Any]:
        return next(messages, None) or await receive()

    return again


def _files_named_in(body: bytes) -> Iterator[str]:
    """The value of every "path" in a JSON body: Gradio reads such a file, or fetches it where it is an address."""
    try:
        left = [json.loads(body)]
    except (ValueError, RecursionError):
        return
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "path" in value:
                yield str(value["path"])
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
