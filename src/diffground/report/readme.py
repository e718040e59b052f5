"""Copy reports/tables into the marked blocks of README.md: `python -m diffground.report.readme`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from diffground.entry_point import run_entry_point
from diffground.errors import UserError
from diffground.reproduction import paths

README = Path("README.md")
_BLOCK = re.compile(r"(<!-- table: (?P<name>\w+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def marked_tables(text: str) -> dict[str, str]:
    """Name -> body of every block between `<!-- table: NAME -->` and `<!-- end -->`."""
    return {match["name"]: match["body"] for match in _BLOCK.finditer(text)}


def update_readme(text: str, tables: Mapping[str, str]) -> str:
    """`text` with the body of every marked block replaced by the table of its name.

    Raises: UserError for a block whose table does not exist.
    """

    def replaced(match: re.Match[str]) -> str:
        if match["name"] not in tables:
            raise UserError(f"{README}: no table named '{match['name']}'; known: {', '.join(sorted(tables)) or 'none'}")
        return f"{match[1]}{tables[match['name']]}{match[4]}"

    return _BLOCK.sub(replaced, text)


def read_tables(folder: Path = paths.TABLES) -> dict[str, str]:
    """The Markdown tables that stage report wrote. Raises: UserError when there are none."""
    tables = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    if not tables:
        raise UserError(f"{folder}: holds no tables; run `dvc repro report`")
    return tables


def main() -> None:
    """Refresh README.md in the current directory."""
    README.write_text(update_readme(README.read_text(encoding="utf-8"), read_tables()), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_entry_point(main, resume_with="python -m diffground.report.readme"))
