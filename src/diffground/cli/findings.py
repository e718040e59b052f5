"""What a check of `diffground doctor` returns, and what several of them ask."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    status: str
    """'ok', 'warn': something is limited, 'fail': the pipeline of the current profile cannot run."""
    what: str
    found: str
    fix: str = ""
    """What to do; '' where there is nothing to do."""

    def line(self) -> str:
        return f"{self.status:<5}{self.what}: {self.found}{f'; {self.fix}' if self.fix else ''}"


Check = Callable[[], Iterable[Finding]]


def is_installed(module: str) -> bool:
    """Whether `module` could be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # of a package above it, or one that was set to None
        return False


def is_clone(folder: Path) -> bool:
    """Whether `folder` is the root of a clone of the repository."""
    return (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file()
