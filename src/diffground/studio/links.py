"""Addresses of the servers that belong to a run, where they answer."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from diffground.tracking import without_password

_STACK = Path(".prefect/up.json")
"""Written by `python -m flows up`."""
_DEFAULTS = {"MLflow": "http://127.0.0.1:5000", "Prefect": "http://127.0.0.1:4200"}
_HEALTH = {"MLflow": "/health", "Prefect": "/api/health"}
PAGES = {"MLflow": "/#/experiments", "Prefect": "/deployments"}
"""Name of a server -> the page to open; MLflow 3 opens a page about language models instead."""
_TIMEOUT_S = 0.5


def addresses(tracking_uri: str) -> dict[str, str]:
    """Name of a server -> its address: of `python -m flows up`, or else where it listens by default. A tracking server
    of params.yaml goes before both; a name and password in its address are left out."""
    found = dict(_DEFAULTS)
    try:
        stack = json.loads(_STACK.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stack = {}
    if isinstance(stack, dict):
        found |= {name: stack[name.lower()] for name in found if isinstance(stack.get(name.lower()), str)}
    if tracking_uri.startswith(("http://", "https://")):
        found["MLflow"] = tracking_uri
    return {name: clean for name, address in found.items() if (clean := _without_user(address))}


def answering(servers: Mapping[str, str]) -> dict[str, str]:
    """Those that answer within half a second."""
    return {name: address for name, address in servers.items() if _answers(address + _HEALTH[name])}


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # they are here, or the user's
    try:
        with opener.open(url, timeout=_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _without_user(address: str) -> str:
    parts = urlsplit(address)
    is_server = parts.scheme in ("http", "https") and parts.hostname
    return without_password(address).rstrip("/") if is_server else ""
