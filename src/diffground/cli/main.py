"""The command line."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from diffground import __version__
from diffground.cli import actions
from diffground.cli.completion import add_completion
from diffground.cli.export import add_export
from diffground.cli.help import CommandGroups
from diffground.cli.options import add_exchange, add_ground, add_new, add_segment, add_studio
from diffground.cli.quality import add_quality
from diffground.entry_point import run_entry_point
from diffground.reproduction import paths
from diffground.reproduction.fetch import ARTIFACTS


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0, or 2 with one line on stderr."""
    args = _parser().parse_args(arguments)
    command = shlex.join(["diffground", *(sys.argv[1:] if arguments is None else arguments)])
    sys.exit(run_entry_point(lambda: args.run(args), resume_with=command))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="diffground", description="Masks for any words from a text-to-image model.")
    parser.add_argument("--version", action="version", version=f"diffground {__version__}")
    commands = CommandGroups(parser)

    profile = commands.add_parser(
        "profile", actions.profile, help="choose a profile: write its settings to params.yaml"
    )
    profile.add_argument("name", help="mini, smoke, paper_voc, paper_coco, or another file of conf/profile")
    profile.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="e.g. grounding.iterations=100, experiment=seen_05"
    )

    add_new(commands)
    commands.add_parser(
        "reproduce", actions.reproduce, help="run all stages, print scores and links, then compare with the last commit"
    )
    add_ground(commands)
    add_segment(commands)
    add_studio(commands)
    _add_experiments(commands)

    compare = commands.add_parser(
        "compare", actions.compare, help="print the scores of several runs in a table, with differences to the first"
    )
    compare.add_argument(
        "names",
        nargs="+",
        metavar="RUN",
        help="'here' (reports/metrics), a record of reports/experiments, a DVC experiment, or an MLflow parent run",
    )
    compare.add_argument("--csv", action="store_true", help="comma-separated values instead of a Markdown table")

    commands.add_parser(
        "sync", actions.sync, help="send the runs that were recorded while the MLflow server was unreachable"
    )
    commands.add_parser("recover", actions.recover, help="repair DVC's files after it was killed while writing one")

    doctor = commands.add_parser(
        "doctor", actions.doctor, help="check this machine and this clone, and say how to fix problems"
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object instead of lines")

    verify = commands.add_parser(
        "verify", actions.verify, help="compare all outputs here with those of the last commit"
    )
    verify.add_argument(
        "--record",
        action="store_true",
        help="write this machine to reports/machine.json, to be committed with dvc.lock",
    )

    fetch = commands.add_parser(
        "fetch", actions.fetch, help="download what the paper's profiles need; resumes broken downloads"
    )
    fetch.add_argument(
        "name", choices=tuple(ARTIFACTS), help="; ".join(f"{name}: {what}" for name, what in ARTIFACTS.items())
    )
    fetch.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder to write; default: data for data sets, the libraries' caches for weights",
    )
    fetch.add_argument("--dry-run", action="store_true", help="only list files, sizes and sources; download nothing")

    add_exchange(commands)
    add_export(commands)
    add_quality(commands)
    add_completion(commands, parser)
    commands.finish()
    return parser


def _add_experiments(commands: CommandGroups) -> None:
    parser = commands.add_parser("experiments", None, help="list, run or collect the experiments of the paper's tables")
    subcommands = parser.add_subparsers(dest="action", required=True)
    for name, what, action in (
        ("list", "list every experiment, with its source, expected time and profiles", actions.list_experiments),
        (
            "run",
            "run the unfinished ones, one after another; params.yaml, dvc.lock and reports/ do not change",
            actions.run_experiments,
        ),
        ("collect", f"write the scores of finished ones to {paths.EXPERIMENTS}", actions.collect_experiments),
    ):
        command = subcommands.add_parser(name, help=what)
        command.add_argument("globs", nargs="*", metavar="GLOB", help="names, e.g. 'table1_*'; default: all")
        command.set_defaults(run=action)
        if name != "list":
            command.add_argument("--profile", help="a file of conf/profile; default: that of params.yaml")
            command.add_argument(
                "--seeds",
                type=int,
                default=1,
                metavar="N",
                help="also repeat each with seeds 1 to N - 1 of its trainings, as NAME_seed1 …; default: %(default)s",
            )
