"""What README and the documentation say that can be run or looked up: commands, Python, links."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("[!_]*.md")])
PAGES += sorted((ROOT / "docs/reference").glob("*.md"))
NOT_RUN = ROOT / "docs/commands_not_run.md"
_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
_SCRIPT = re.compile(r"^# \w+\.py: (.+)$", re.MULTILINE)
"""The first line of a Python block that is a script: its name and the command that runs it."""
_COMMENT = re.compile(r"(?:^|\s+)#\s.*")


def blocks(page, language):
    """The code blocks of a page in a language."""
    text = page.read_text(encoding="utf-8")
    return [match["body"] for match in _BLOCK.finditer(text) if match["language"] == language]


def commands():
    """Command -> the first page that names it, in the order of the pages."""
    found = {}
    for page in PAGES:
        for block in blocks(page, "python"):
            found |= dict.fromkeys(_SCRIPT.findall(block), page)
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                command = _COMMENT.sub("", line).strip()
                if command:
                    found.setdefault(command, page)
    return found


def not_run():
    """Rows of the table of commands that tests do not run: command -> reason."""
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|$", NOT_RUN.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 10 and len({command for command, _ in rows}) == len(rows)
    return dict(rows)


def matches(row, command):
    """Whether a row of that table is about `command`; a name in capitals stands for any argument."""
    return re.fullmatch(re.sub(r"\b[A-Z]{4,}\b(?!=)", ".+", re.escape(row)), command) is not None


def commands_to_run():
    """The commands that are in no row of that table."""
    rows = not_run()
    return [command for command in commands() if not any(matches(row, command) for row in rows)]


def python_blocks():
    """Name of the block -> its code, of README and docs; not CONTRIBUTING's, which show style, and not scripts."""
    pages = [page for page in PAGES if page.name != "CONTRIBUTING.md"]
    return {
        f"{page.relative_to(ROOT)}, block {i}": block
        for page in pages
        for i, block in enumerate(blocks(page, "python"), start=1)
        if not _SCRIPT.search(block)
    }
