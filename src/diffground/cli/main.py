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
from diffground.cli.options import add_ground, add_segment, add_studio
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

    profile = commands.add_parser("profile", help="choose a profile: write its settings to params.yaml")
    profile.add_argument("name", help="mini, smoke, paper_voc, paper_coco, or another file of conf/profile")
    profile.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="e.g. grounding.iterations=100, experiment=seen_05"
    )
    profile.set_defaults(run=actions.profile)

    _add_new(
        commands.add_parser(
            "new", help="own categories: write a vocabulary and a profile, and estimate the time of a run"
        )
    )

    reproduce = commands.add_parser(
        "reproduce", help="run all stages, print scores and links, then compare with the last commit"
    )
    reproduce.set_defaults(run=actions.reproduce)

    add_ground(commands.add_parser("ground", help="generate images and segment words in them"))
    add_segment(commands.add_parser("segment", help="find words in your own images"))
    add_studio(commands.add_parser("studio", help="generate, segment, review and export in a browser"))
    _add_experiments(
        commands.add_parser("experiments", help="list, run or collect the experiments of the paper's tables")
    )
    compare = commands.add_parser(
        "compare", help="print the scores of several runs in a table, with differences to the first"
    )
    compare.add_argument(
        "names",
        nargs="+",
        metavar="RUN",
        help="'here' (reports/metrics), a record of reports/experiments, a DVC experiment, or an MLflow parent run",
    )
    compare.add_argument("--csv", action="store_true", help="comma-separated values instead of a Markdown table")
    compare.set_defaults(run=actions.compare)

    sync = commands.add_parser("sync", help="send the runs that were recorded while the MLflow server was unreachable")
    sync.set_defaults(run=actions.sync)

    recover = commands.add_parser("recover", help="repair DVC's files after it was killed while writing one")
    recover.set_defaults(run=actions.recover)

    doctor = commands.add_parser("doctor", help="check this machine and this clone, and say how to fix problems")
    doctor.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    doctor.set_defaults(run=actions.doctor)

    verify = commands.add_parser("verify", help="compare all outputs here with those of the last commit")
    verify.add_argument(
        "--record",
        action="store_true",
        help="write this machine to reports/machine.json, to be committed with dvc.lock",
    )
    verify.set_defaults(run=actions.verify)

    fetch = commands.add_parser("fetch", help="download what the paper's profiles need; resumes broken downloads")
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
    fetch.set_defaults(run=actions.fetch)

    released = commands.add_parser("import-released", help="convert the paper authors' weights to a model folder")
    released.add_argument("file", type=Path, help="the published file, grounding_module.pth")
    read_from = f"model folder to write; `ground --grounding FOLDER` reads it, the stages read {paths.GROUNDING_MODEL}"
    released.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help=read_from)
    released.set_defaults(run=actions.import_released)

    imported = commands.add_parser(
        "import-maskformer", help="convert weights of the official MaskFormer to a segmenter"
    )
    imported.add_argument("file", type=Path, metavar="MODEL.pth", help="a checkpoint of the authors' train_net.py")
    read_by = f"model folder to write; the stages read {paths.SEGMENTERS}/TRAINING_SET"
    imported.add_argument("folder", type=Path, metavar="FOLDER", help=read_by)
    imported.set_defaults(run=actions.import_maskformer)

    exported = commands.add_parser(
        "export-maskformer",
        help="write a segmenter's weights for the official MaskFormer; `export` writes data sets",
    )
    exported.add_argument("folder", type=Path, metavar="FOLDER", help=f"a segmenter, e.g. {paths.SEGMENTERS}/synthetic")
    exported.add_argument(
        "file", type=Path, metavar="MODEL.pth", help="file to write; its settings are written to MODEL.yaml next to it"
    )
    exported.set_defaults(run=actions.export_maskformer)

    onnx = commands.add_parser(
        "export-onnx",
        help="write a segmenter's weights as one ONNX file, for any batch size; `export` writes data sets",
    )
    onnx.add_argument("folder", type=Path, metavar="FOLDER", help=f"a segmenter, e.g. {paths.SEGMENTERS}/synthetic")
    onnx.add_argument("file", type=Path, metavar="FILE.onnx", help="file to write")
    onnx.set_defaults(run=actions.export_onnx)

    add_export(commands)
    add_quality(commands)
    add_completion(commands, parser)
    commands.finish()
    return parser


def _add_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="writes conf/vocabulary/NAME.yaml and conf/profile/NAME.yaml")
    listed = "may be repeated; WORD=LABEL if the detector has another name for WORD"
    parser.add_argument(
        "--seen",
        action="append",
        default=[],
        metavar="A,B",
        help=f"categories that the detector labels, with commas; {listed}",
    )
    parser.add_argument(
        "--unseen", action="append", default=[], metavar="C,D", help=f"categories without labels, with commas; {listed}"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--from-coco", type=Path, metavar="FILE", help="categories of a COCO annotation file (JSON)")
    source.add_argument("--from-voc", type=Path, metavar="DIR", help="categories of a VOC devkit")
    source.add_argument("--from-list", type=Path, metavar="FILE", help="categories of a text file, one per line")
    parser.add_argument("--base", default="mini", help="profile whose models and settings are used (default: mini)")
    parser.add_argument(
        "--pairs",
        choices=("all", "none"),
        default="all",
        help="which pairs of categories share a prompt (default: all)",
    )
    parser.add_argument(
        "--real",
        type=Path,
        metavar="DIR",
        help="real images with masks, to score segmenters: a VOC devkit, or a folder with images/ and masks/",
    )
    parser.add_argument("--no-estimate", action="store_true", help="do not estimate the time of a run")
    parser.add_argument("--on", metavar="DEVICE", help="estimate for another device, from the benchmark table")
    parser.set_defaults(run=actions.new)


def _add_experiments(parser: argparse.ArgumentParser) -> None:
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
