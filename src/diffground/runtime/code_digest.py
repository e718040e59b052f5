"""A digest of the code that a result depends on, so that shards of older code are not taken for those of newer code."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[2]  # the folder that holds the package
_WITHOUT_EFFECT = tuple(f"diffground.{name}" for name in ("atomic", "config", "errors", "params", "ranges", "runtime"))
"""Modules and packages that decide how something runs, not what comes out."""


@functools.cache
def code_digest(module: str, *, root: Path = _ROOT) -> str | None:
    """SHA-256 over `module` and all modules of its package that it imports, directly or not.

    Comments, docstrings and layout do not count. `root`: the folder that holds the package.
    Returns: None for a module that is not in a package below `root`.
    """
    package = module.partition(".")[0]
    if _file_of(module, root) is None:
        return None
    found, queue = set[str](), [module]
    while queue:
        name = queue.pop()
        path = _file_of(name, root)
        if name in found or path is None or name.startswith(_WITHOUT_EFFECT):
            continue
        found.add(name)
        queue += [other for other in _imported(path, name) if other.partition(".")[0] == package]
    digest = hashlib.sha256()
    for name in sorted(found):
        path = _file_of(name, root)
        assert path is not None
        digest.update(f"{name}\0{ast.dump(_without_texts(ast.parse(path.read_text(encoding='utf-8'))))}\n".encode())
    return digest.hexdigest()


def _file_of(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imported(path: Path, module: str) -> Iterator[str]:
    """Names that an import statement of `path` may mean, modules or not."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _without_texts(tree: ast.Module) -> ast.Module:
    """`tree` without docstrings, those of attributes too."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
    return tree


def _is_text(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
