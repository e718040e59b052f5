"""`diffground export`: its options, and what it does."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffground.cli.help import CommandGroups
from diffground.errors import UserError
from diffground.reproduction import paths


def add_export(commands: CommandGroups) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "export",
        export,
        help="write synthetic images and masks as a data set for other tools; export-onnx and export-maskformer write "
        "weights",
    )
    command.add_argument(
        "shards", type=Path, metavar="SHARDS", help=f"folder of shards of stage synthesize, e.g. {paths.SYNTHETIC}"
    )
    command.add_argument(
        "--format",
        action="append",
        required=True,
        metavar="FORMAT",
        help="voc, coco, yolo, hf (Hugging Face datasets) or png; may be repeated: each then has a folder of its name "
        "in DIR",
    )
    command.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="a new or an empty folder")
    command.add_argument(
        "--split", default="1", metavar="SHARES", help="of train, val and test, e.g. 0.8,0.1,0.1; no prompt is in two"
    )
    command.add_argument("--seed", type=int, default=0, help="of --split and --per-category")
    command.add_argument(
        "--min-quality", type=float, metavar="Q", help="leave out samples whose quality, 0..1, is lower"
    )
    command.add_argument(
        "--review",
        type=Path,
        metavar="FILE",
        help="CSV with the columns id, prompt, look, verdict, note; leave out what it rejects. A row without look is "
        "compared by its prompt only",
    )
    command.add_argument(
        "--per-category", type=int, metavar="N", help="at most N images whose prompt names the same category"
    )
    command.add_argument("--polygons", action="store_true", help="format coco: polygons instead of run lengths")


def export(args: argparse.Namespace) -> None:
    from diffground.exchange.export import ExportOptions, export_shards
    from diffground.exchange.samples import Categories, read_categories

    if not args.shards.is_dir():
        raise UserError(f"{args.shards}: no such folder of shards; run `dvc repro synthesize`, or name another")
    categories = read_categories(args.shards)
    if categories is None:
        from diffground.reproduction.config import load_params

        vocabulary = load_params(paths.PARAMS).vocabulary.load()
        categories = Categories(names=vocabulary.categories, used=vocabulary.used)
    options = ExportOptions(
        formats=tuple(args.format),
        split=args.split,
        seed=args.seed,
        min_quality=args.min_quality,
        review=args.review,
        per_category=args.per_category,
        polygons=args.polygons,
    )
    print("\n".join(export_shards(args.shards, args.out, categories=categories, options=options)))
