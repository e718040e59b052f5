"""`diffground completion`: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from diffground.cli.help import CommandGroups

SHELLS = ("bash", "zsh", "tcsh")


def add_completion(commands: CommandGroups, parser: argparse.ArgumentParser) -> None:
    """Add the command, which describes `parser`."""

    def completion(args: argparse.Namespace) -> None:
        import shtab

        _complete_files(parser, shtab.FILE)
        print(shtab.complete(parser, shell=args.shell))

    command = commands.add_parser(
        "completion", completion, help="print a script that completes commands and options in a shell"
    )
    command.add_argument("shell", choices=SHELLS, help="the shell that reads it")


def _complete_files(parser: argparse.ArgumentParser, files: dict[str, Any]) -> None:
    """Let every argument that is a path be completed with `files`, in all commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.type is Path:
            action.complete = files  # type: ignore[attr-defined]
