"""What a module of the package needs: the modules that it imports, at any depth, and the data files that it names."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The folder that holds the package."""


def file_of(module: str, root: Path = ROOT) -> Path | None:
    """The source of "package.module"; None where there is none below `root`."""
    path = root.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported_names(path: Path, module: str) -> Iterator[str]:
    """Names that an import statement of `path` may mean, modules or not; imports inside functions count."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def reached_modules(start: Iterable[str], *, without: Collection[str] = (), root: Path = ROOT) -> dict[str, Path]:
    """Module -> file: `start` and all that they import, directly or not, within their packages.

    without: modules and packages that are left out, with all that only they import.
    """
    found, queue = dict[str, Path](), list(start)
    packages = {name.partition(".")[0] for name in queue}
    while queue:
        name = queue.pop()
        path = file_of(name, root)
        if path is None or name in found or any(name == out or name.startswith(f"{out}.") for out in without):
            continue
        found[name] = path
        queue += [other for other in imported_names(path, name) if other.partition(".")[0] in packages]
    return found


def data_files(path: Path, *, root: Path = ROOT) -> set[Path]:
    """Files other than Python's that `path` names as text, next to itself or below its top package."""
    package = root / path.relative_to(root).parts[0]
    texts = {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value
    }
    folders = [path.parent, path.parent / "templates", package, package / "tables"]
    named = {folder / text for text in texts if len(text) < 200 for folder in folders}
    return {file for file in named if file.suffix not in ("", ".py") and file.is_file()}
