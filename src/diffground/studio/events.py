"""How events of the page are connected to their handlers: errors become one line, and no event is a public API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffground.studio.messages import with_plain_errors

MODEL, REVIEW, EXPORT = "model", "review", "export"
"""Queues: what waits in one of them does not delay the others."""


def at_once(event: Callable[..., Any], handler: Callable[..., Any], inputs: Any, outputs: Any, **more: Any) -> Any:
    """Without a queue, for what computes nothing: the answer of a queued event is lost where another one ends at the
    same moment."""
    options = {"show_progress": "hidden", "queue": False, "api_visibility": "private", **more}
    return event(with_plain_errors(handler), inputs, outputs, **options)


def queued(
    event: Callable[..., Any], handler: Callable[..., Any], inputs: Any, outputs: Any, *, queue: str, **more: Any
) -> Any:
    """One after another in `queue`; `more` are options of Gradio."""
    options = {"concurrency_limit": 1, "concurrency_id": queue, "api_visibility": "private", **more}
    return event(with_plain_errors(handler), inputs, outputs, **options)
