"""A digest of the code that a result depends on, so that shards of older code are not taken for those of newer code."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

from diffground.runtime.imports import ROOT, file_of, reached_modules

_WITHOUT_EFFECT = tuple(
    f"diffground.{name}"
    for name in ("atomic", "data.shard_map", "entry_point", "errors", "ranges", "reproduction", "runtime")
)
"""Modules and packages that decide how something runs, not what comes out."""


@functools.cache
def code_digest(module: str, *, root: Path = ROOT) -> str | None:
    """SHA-256 over `module` and all modules of its package that it imports, directly or not.

    Comments, docstrings and layout do not count. `root`: the folder that holds the package.
    Returns: None for a module that is not in a package below `root`.
    """
    if file_of(module, root) is None:
        return None
    digest = hashlib.sha256()
    for name, path in sorted(reached_modules([module], without=_WITHOUT_EFFECT, root=root).items()):
        digest.update(f"{name}\0{ast.dump(_without_texts(ast.parse(path.read_text(encoding='utf-8'))))}\n".encode())
    return digest.hexdigest()


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
