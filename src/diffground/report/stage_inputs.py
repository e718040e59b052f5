"""Digests of the inputs of stages that no stage produces (code, models, reviews), from a dvc.lock.

Two runs with equal digests and parameters did the same, even if their commits differ. The inputs are those that DVC
compares: where digests differ, it would run the stage again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def input_digests(stages: Mapping[str, Any], *, target: str | None = None) -> dict[str, str]:
    """Stage -> SHA-256 of paths and hashes of its inputs, 16 hexadecimal digits.

    stages: those of a dvc.lock, name -> entry. target: only this stage and those whose outputs it needs.
    """
    makers = {out["path"]: name for name, entry in stages.items() for out in entry.get("outs", [])}
    digests: dict[str, str] = {}
    queue = list(stages) if target is None else [target]
    while queue:
        name = queue.pop()
        if name in digests:
            continue
        deps = {dep["path"]: str(dep.get("md5")) for dep in stages[name].get("deps", [])}
        queue += [makers[path] for path in deps if path in makers]
        inputs = "".join(f"{path}\0{deps[path]}\n" for path in sorted(deps) if path not in makers)
        digests[name] = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    return digests


def default_inputs(lock: Path = Path("dvc.lock")) -> dict[str, str]:
    """The digests of the stages of the default run that `lock` records; none without the file."""
    import yaml

    stages = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages") if lock.is_file() else None
    return input_digests(stages or {})
