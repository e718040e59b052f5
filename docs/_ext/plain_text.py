"""Text of docstrings and of help as Markdown."""

from __future__ import annotations

import json
import re
from typing import Any


def escape(text: str) -> str:
    """Plain text with code in backticks as Markdown: the same text, shown as it is."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([\\*_<>\[\]{}|$#~])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def as_code(value: Any) -> str:
    """A value of params.yaml as code."""
    return f"`{json.dumps(value, ensure_ascii=False)}`"
