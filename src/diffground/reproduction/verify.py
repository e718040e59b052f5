"""`diffground verify`: compare the outputs here with those of the committed reproduction, byte for byte."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffground.atomic import write_atomically
from diffground.errors import UserError
from diffground.reproduction.commands import DVC, git, git_file, output_of
from diffground.reproduction.lock_file import Stages, read_stages
from diffground.reproduction.params import flat_params
from diffground.reproduction.recovery import LOCK, is_whole
from diffground.runtime.config import RuntimeConfig

MACHINE = Path("reports/machine.json")
"""The machine of the committed reproduction; `diffground verify --record` writes it."""
_LIBRARIES = ("torch", "numpy", "diffusers", "transformers")


@dataclass(frozen=True)
class Machine:
    """What the bytes of a result depend on, in addition to code, data and parameters."""

    processor: str
    instruction_set: str
    """The largest one that torch uses."""
    num_threads: int
    """`runtime.num_threads` of params.yaml, which the workers share."""
    num_workers: int
    versions: dict[str, str]

    @classmethod
    def here(cls, runtime: RuntimeConfig) -> Machine:
        import torch

        return cls(
            processor=_processor(),
            instruction_set=torch.backends.cpu.get_cpu_capability(),
            num_threads=runtime.num_threads,
            num_workers=runtime.num_workers,
            versions={name: version(name) for name in _LIBRARIES},
        )

    def record(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")

    def differences(self, other: Machine) -> list[str]:
        """'processor: theirs, here ours' for each part in which `other`, the one of here, differs."""
        theirs, ours = _flat(self), _flat(other)
        return [f"{name}: {theirs[name]}, here {ours[name]}" for name in theirs if theirs[name] != ours[name]]


def committed_machine(root: Path = Path()) -> Machine | None:
    """That of the last commit; None where it has none. Raises: UserError for a damaged file."""
    text = git_file("HEAD", f"./{MACHINE}", cwd=root)
    if text is None:
        return None
    try:
        return Machine(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise UserError(f"{MACHINE}: damaged in the last commit ({error}); write it with `--record`") from None


@dataclass(frozen=True)
class Difference:
    """The first stage, in the order of the pipeline, with an output that differs or is no longer made."""

    stage: str
    outputs: tuple[str, ...]
    params: tuple[str, ...]
    """'key: committed, here value' of the stage's parameters that differ."""


def verify(root: Path = Path()) -> Difference | None:
    """Compare what `dvc repro` recorded here with the dvc.lock of the last commit; None: all outputs are equal.

    Raises: UserError when there is nothing to compare, or when outputs are not what dvc.lock says.
    """
    git("rev-parse", "--verify", "HEAD", cwd=root)  # says so where this is no git repository
    committed_text = git_file("HEAD", f"./{LOCK}", cwd=root)
    if committed_text is None:
        raise UserError(f"{LOCK}: the last commit has none, so there is nothing to compare with")
    if not (root / LOCK).is_file():
        raise UserError(f"{LOCK}: not there; run `dvc repro`")
    text = (root / LOCK).read_text(encoding="utf-8")
    if not is_whole(text):
        raise UserError(f"{LOCK}: damaged; run `diffground recover`")
    committed, here = read_stages(committed_text), read_stages(text)
    status = json.loads(output_of([*DVC, "status", "--json"], cwd=root) or "{}")
    stale = sorted(stage for stage, changes in status.items() if not all(map(_is_only_uncached, changes)))
    if stale:
        raise UserError(f"the outputs are not complete or not up to date ({', '.join(stale)}); run `dvc repro`")
    for stage in _in_order(here):
        entry, other = here[stage], committed.get(stage, {})
        hashes = {out["path"]: out["md5"] for out in other.get("outs", [])}
        outputs = tuple(out["path"] for out in entry.get("outs", []) if hashes.get(out["path"]) != out["md5"])
        if outputs:
            return Difference(stage, outputs, _differing_params(other, entry))
    for stage, entry in committed.items():
        made = {out["path"] for out in here.get(stage, {}).get("outs", [])}
        missing = tuple(out["path"] for out in entry.get("outs", []) if out["path"] not in made)
        if missing:
            return Difference(stage, missing, ())
    return None


def _is_only_uncached(change: Any) -> bool:
    """Whether an entry of `dvc status` says only that outputs, which are here as recorded, are not in DVC's cache."""
    return isinstance(change, dict) and all(
        kind == "changed outs" and set(paths.values()) == {"not in cache"} for kind, paths in change.items()
    )


def _in_order(stages: Stages) -> list[str]:
    """The stages, each after those whose outputs it reads."""
    makers = {out["path"]: name for name, entry in stages.items() for out in entry.get("outs", [])}
    graph = {
        name: {makers.get(dep["path"], name) for dep in entry.get("deps", [])} - {name}
        for name, entry in stages.items()
    }
    return list(TopologicalSorter(graph).static_order())


def _differing_params(committed: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[str, ...]:
    theirs, ours = (flat_params((entry.get("params") or {}).get("params.yaml") or {}) for entry in (committed, here))
    return tuple(
        f"{key}: {theirs.get(key)}, here {ours.get(key)}"
        for key in sorted({*theirs, *ours})
        if theirs.get(key) != ours.get(key)
    )


def _processor() -> str:
    """Model of the processor, as Linux names it, or what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in fields.items()}
        model = " ".join(filter(None, [named.get("model name", ""), _family(named)]))
        if model:
            return model
    return platform.processor() or platform.machine()


def _family(named: Mapping[str, str]) -> str:
    """Virtual machines may hide the model's name: family and model number tell processors apart."""
    return f"(family {named['cpu family']}, model {named['model']})" if "cpu family" in named else ""


def _flat(machine: Machine) -> dict[str, str]:
    return {
        "processor": machine.processor,
        "instruction set": machine.instruction_set,
        "threads": str(machine.num_threads),
        "workers": str(machine.num_workers),
        **machine.versions,
    }
