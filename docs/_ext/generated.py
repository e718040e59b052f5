"""Writes docs/_generated before Sphinx reads the pages: the references that are made from the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from command_reference import command_reference
from params_reference import params_reference
from sphinx.application import Sphinx

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]*)\]\((?P<path>\.\./[^)#\s]+)\)")


def write_generated(app: Sphinx) -> None:
    """Write the pages that docs/reference includes. A page that did not change keeps its time."""
    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    pages = {"params.md": params_reference(Path(app.srcdir).parent), "commands.md": command_reference()}
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def link_to_repository(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links to files outside of docs/ go to the repository; in the repository itself they work as they are."""
    pages, root = Path(app.srcdir), Path(app.srcdir).parent

    def target(link: re.Match[str]) -> str:
        path = ((pages / docname).parent / link["path"]).resolve()
        if path.is_relative_to(pages) or not path.exists():
            return link[0]
        return (
            f"[{link['text']}]({app.config.html_theme_options['source_repository']}blob/main/{path.relative_to(root)})"
        )

    source[0] = _LINK.sub(target, source[0])


def escape_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with code in backticks: escape what reStructuredText would read as markup."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith(">>>"):
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_generated)
    app.connect("source-read", link_to_repository)
    app.connect("autodoc-process-docstring", escape_docstring, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
