"""`diffground doctor`: what this machine and this clone have, what is missing, and the command that helps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from diffground.cli import doctor_clone, doctor_machine
from diffground.cli.findings import Check, Finding
from diffground.errors import UserError, in_one_line


def doctor(*, as_json: bool) -> bool:
    """Print what all checks find, in lines or as one JSON object. Returns: whether no finding is 'fail'."""
    found = []
    for check in (*doctor_machine.CHECKS, *doctor_clone.CHECKS):
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
