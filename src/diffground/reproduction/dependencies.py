"""The code that each stage of dvc.yaml depends on, derived from what its script imports: `make deps` writes it."""

from __future__ import annotations

import re
from pathlib import Path

from diffground.atomic import write_atomically
from diffground.runtime.imports import data_files, file_of, imported_names, reached_modules

PIPELINE = Path("dvc.yaml")
WITHOUT_EFFECT = (
    # how files are written, errors are shown and runs are logged
    "atomic",
    "entry_point",
    "errors",
    "tracking",
    # how params.yaml is read and checked: DVC compares the values themselves
    "ranges",
    "grounding.config",
    "segmentation.config",
    "runtime.config",
    "diffusion.sampling",
    "reproduction.commands",
    "reproduction.config",
    "reproduction.lock_file",
    "reproduction.overview",
    "reproduction.params",
    "reproduction.paths",
    "reproduction.recovery",
    # which process computes, in what batches, and progress; tests show that the outputs are equal
    "runtime.backend",
    "runtime.batches",
    "runtime.code_digest",
    "runtime.fork_server",
    "runtime.imports",
    "runtime.instruction_set",
    "runtime.memory",
    "runtime.openmp",
    "runtime.overlap",
    "runtime.processes",
    "runtime.progress",
    "runtime.rank",
    "runtime.ray",
    "runtime.workers",
)
"""Modules and packages of diffground that change no output of a stage."""

_NAMED_OTHERWISE = {
    "sample_prompts": ("tables/contexts.yaml", "tables/contexts_stickers.yaml", "vocabularies/coco.yaml")
}
"""Stage -> files of the package that a value of params.yaml may name, or code without their suffix."""
_STAGE = re.compile(r"^  (\w+):\n(?:    .*\n|\n|  #.*\n)*", re.MULTILINE)
_CODE = re.compile(r"(?:      - (?:stages|src/diffground)/\S+\n)+")


def code_of(stage: str, *, root: Path = Path()) -> list[str]:
    """Paths relative to `root` of the stage's script and of the package's files that can change its outputs."""
    script = root / "stages" / f"{stage}.py"
    source = (root / "src").resolve()
    start = [name for name in imported_names(script, stage) if name.startswith("diffground.") and file_of(name, source)]
    without = [f"diffground.{name}" for name in WITHOUT_EFFECT]
    modules = reached_modules(start, without=without, root=source)
    files = {path for path in modules.values() if path.name != "__init__.py"}  # these hold a docstring only
    files |= {data for path in files for data in data_files(path, root=source)}
    files |= {source / "diffground" / name for name in _NAMED_OTHERWISE.get(stage, ())}
    return [f"stages/{stage}.py", *sorted(f"src/{path.relative_to(source).as_posix()}" for path in files)]


def with_derived_code(text: str, *, root: Path = Path()) -> str:
    """`text` of dvc.yaml with the code of each stage's deps replaced; all else stays."""

    def replace(stage: re.Match[str]) -> str:
        blocks = iter(["".join(f"      - {path}\n" for path in code_of(stage[1], root=root))])
        return _CODE.sub(lambda _: next(blocks, ""), stage[0])  # later blocks of code are removed

    return _STAGE.sub(replace, text)


if __name__ == "__main__":
    write_atomically(PIPELINE, with_derived_code(PIPELINE.read_text(encoding="utf-8")))
