"""The reference of the command line, from the parsers of `diffground` and `python -m flows`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

from plain_text import escape

from diffground.cli.help import EXAMPLES, GROUPS
from diffground.cli.main import _parser as diffground_parser
from flows.__main__ import _parser as flows_parser


def command_reference() -> str:
    """Markdown: commands in the groups of `diffground --help`, each with usage, arguments and examples."""
    commands = subcommands(diffground_parser())
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "other": tuple(name for name in commands if name not in grouped)}
    lines = []
    for title, names in groups.items():
        there = [name for name in names if name in commands]
        lines += [f"## {title.capitalize()}\n"] if there else []
        for name in there:
            lines += _command(f"diffground {name}", commands[name])
            lines += ["Examples:\n", "```text", *EXAMPLES.get(name, ()), "```\n"] if name in EXAMPLES else []
    lines.append("## python -m flows\n")
    for name, parser in subcommands(flows_parser()).items():
        lines += _command(f"python -m flows {name}", parser)
    return "\n".join(lines)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Name -> parser of each subcommand, in order; empty where there are none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _command(title: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    parser.formatter_class = partial(argparse.HelpFormatter, width=96)
    yield f"### {title}\n"
    if parser.description:
        yield f"{escape(parser.description)}\n"
    yield f"```text\n{parser.format_usage().strip()}\n```\n"
    for action in parser._actions:
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        text = parser._get_formatter()._expand_help(action) if action.help else ""
        yield f"`{_invocation(action)}`\n: {escape(text) or '(no further description)'}\n"
    for name, inner in subcommands(parser).items():
        yield from _command(f"{title} {name}", inner)


def _invocation(action: argparse.Action) -> str:
    value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else None)
    if not action.option_strings:
        return str(value or action.dest.upper())
    value = value or action.dest.upper()
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")
