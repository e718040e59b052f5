"""Sphinx: `make docs`. Builds offline; warnings are errors."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT), str(Path(__file__).parent / "_ext")]

from diffground import __version__  # noqa: E402

project = "diffground"
author = "diffground contributors"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["_build", "_generated"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
smartquotes = False

# Docstrings write code in single backticks.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True

html_theme = "furo"
html_title = f"diffground {release}"
html_show_sphinx = False
html_theme_options = {
    "source_repository": "https://github.com/diffground/diffground/",
    "source_branch": "main",
    "source_directory": "docs/",
}
