"""README and the documentation agree with the repository: links, commands, messages, generated references."""

import ast
import re
import sys
from dataclasses import fields, is_dataclass
from functools import cache
from typing import get_type_hints

import pytest
import yaml

from diffground.cli.main import _parser
from diffground.reproduction.config import Params
from tests.documented import PAGES, ROOT, blocks, commands, matches, not_run

LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", ROOT / "benchmarks/README.md"]
_LINK = re.compile(r"\]\(((?!https?:|mailto:)[^)\s]+)\)")


def prose(page):
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def headings(page):
    """Anchors of a page, as GitHub and MyST make them, and explicit ones."""
    text = prose(page)
    titles = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    return slugs | set(re.findall(r"^\((\S+)\)=$", text, re.MULTILINE))


def broken_links(page, *, root=ROOT):
    found = []
    for link in _LINK.findall(
        re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    ):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(root):
            found.append(f"{link}: no such file")
        elif anchor and anchor not in headings(target):
            found.append(f"{link}: no such heading")
    return found


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title here\n[a](#title-here) [b](#title) [c](missing.md) [d](https://example.org)\n")
    assert broken_links(page, root=tmp_path) == ["#title: no such heading", "missing.md: no such file"]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_and_anchor_exists(page):
    assert broken_links(page) == []


def test_every_page_of_the_documentation_is_in_a_table_of_contents():
    docs = ROOT / "docs"
    tables = re.findall(r"```\{toctree\}\n(.*?)```", (docs / "index.md").read_text(encoding="utf-8"), re.DOTALL)
    listed = {entry for table in tables for entry in table.split()}
    pages = {page.relative_to(docs).with_suffix("").as_posix() for page in PAGES if docs in page.parents}
    assert len(pages) > 20
    assert pages - listed == {"index"}


def test_every_row_of_the_commands_that_are_not_run_is_about_a_command():
    named = commands()
    assert len(named) > 40
    assert [row for row in not_run() if not any(matches(row, command) for command in named)] == []


def test_every_command_that_the_text_names_exists():
    known = set(next(action for action in _parser()._actions if action.dest == "command").choices)
    named = {
        name for page in PAGES for name in re.findall(r"`diffground ([a-z][\w-]*)", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 15
    assert named <= known


@cache
def message_patterns():
    """Every text of the package that may be a message, as a regular expression; values stand for anything."""
    found = []
    for path in (ROOT / "src/diffground").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node] if isinstance(node, ast.Constant) else []
            texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            said = "".join(text for text in texts if isinstance(text, str))
            if len(said) >= 20 and all(text is None or isinstance(text, str) for text in texts):
                found.append("".join(".+?" if text is None else re.escape(text.strip("\n")) for text in texts))
    return [re.compile(pattern) for pattern in found]


def faq_messages():
    return [
        line.removeprefix("error: ") for block in blocks(ROOT / "docs/faq.md", "text") for line in block.splitlines()
    ]


def test_a_message_that_the_code_does_not_have_is_noticed():
    assert not any(pattern.fullmatch("params.yaml: no such file; run it elsewhere") for pattern in message_patterns())


@pytest.mark.parametrize("message", faq_messages())
def test_a_message_of_the_faq_is_one_of_the_code(message):
    without_file = re.sub(r" \((params\.yaml|profile '\w+')\)$", "", message)
    printed = (message, without_file, f"error: {message}")
    assert any(pattern.fullmatch(text) for pattern in message_patterns() for text in printed)


@pytest.fixture
def extension(monkeypatch):
    """The modules of docs/_ext can be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "docs/_ext"))
    yield
    for name in ("params_reference", "command_reference", "plain_text"):
        sys.modules.pop(name, None)


def test_the_configuration_reference_has_every_key_with_the_values_of_the_profiles(extension):
    from params_reference import params_reference

    text = params_reference(ROOT)
    sections = {name: kind for name, kind in get_type_hints(Params).items() if is_dataclass(kind)}
    keys = [f"{name}.{field.name}" for name, kind in sections.items() for field in fields(kind)]
    assert len(keys) > 100
    assert re.findall(r"```\{confval\} (\S+)", text) == keys
    tapped = text.partition("{confval} generator.tapped_step\n")[2].partition("```")[0]
    mini = yaml.safe_load((ROOT / "conf/generator/mini.yaml").read_text())["tapped_step"]
    paper = yaml.safe_load((ROOT / "conf/generator/stable_diffusion.yaml").read_text())["tapped_step"]
    assert tapped.startswith(":type: whole number, 1 or more\n")
    assert f"mini `{mini}`" in tapped and f"paper_voc `{paper}`" in tapped


def test_the_command_reference_has_every_command_and_option(extension):
    from command_reference import command_reference, subcommands

    text = command_reference()
    parsers = subcommands(_parser())
    assert len(parsers) > 15
    for name, parser in parsers.items():
        section = text.partition(f"### diffground {name}\n")[2].partition("\n### diffground " + name + "\n")[0]
        options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
        assert [option for option in options if option != "--help" and option not in section] == []
