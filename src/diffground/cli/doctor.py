"""`diffground doctor`: what this machine and this clone have, what is missing, and the command that helps."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from diffground.errors import UserError, in_one_line


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


def doctor(*, as_json: bool) -> bool:
    """Print what all checks find, in lines or as one JSON object. Returns: whether no finding is 'fail'."""
    from diffground.cli import doctor_clone, doctor_machine

    checks: tuple[Check, ...] = (*doctor_machine.CHECKS, *doctor_clone.CHECKS)
    found = []
    for check in checks:
        for finding in _safely(check):
            found.append(finding)
            if not as_json:
                print(finding.line(), flush=True)
    is_well = all(finding.status != "fail" for finding in found)
    if as_json:
        print(json.dumps({"ok": is_well, "findings": [asdict(finding) for finding in found]}, indent=2))
    return is_well


def _safely(check: Check) -> Iterator[Finding]:
    """A check that fails is a finding itself: the others are still made."""
    try:
        yield from check()
    except UserError as error:
        yield Finding("fail", check.__name__.replace("_", " "), str(error))
    except Exception as error:  # whatever is broken here is what the report is for
        yield Finding("warn", check.__name__.replace("_", " "), f"not checked ({in_one_line(error) or repr(error)})")


def is_installed(module: str) -> bool:
    """Whether `module` could be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # of a package above it, or one that was set to None
        return False


def is_clone(folder: Path) -> bool:
    """Whether `folder` is the root of a clone of the repository."""
    return (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file()
