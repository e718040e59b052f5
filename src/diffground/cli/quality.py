"""`diffground quality`: its options, and what it prints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffground.cli.help import CommandGroups
from diffground.errors import UserError
from diffground.reproduction import paths

if TYPE_CHECKING:
    from diffground.exchange.quality import QualityCount


def add_quality(commands: CommandGroups) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "quality", quality, help="list the quality of synthetic images per category, and what a limit would leave out"
    )
    command.add_argument(
        "shards",
        type=Path,
        nargs="?",
        default=paths.SYNTHETIC,
        metavar="SHARDS",
        help=f"folder of shards of stage synthesize (default: {paths.SYNTHETIC})",
    )
    command.add_argument("--min-quality", type=float, default=0.9, metavar="Q", help="limit, 0..1 (default: 0.9)")
    command.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def quality(args: argparse.Namespace) -> None:
    from diffground.exchange.quality import count_quality

    if not args.shards.is_dir():
        raise UserError(f"{args.shards}: no such folder of shards; run `dvc repro synthesize`, or name another")
    together, by_category = count_quality(args.shards, min_quality=args.min_quality)
    if args.json:
        categories = {name: _as_json(count) for name, count in by_category.items()}
        found = {"min_quality": args.min_quality, "all": _as_json(together), "categories": categories}
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    width = max(map(len, ("category", *by_category))) + 2
    below = f"below {args.min_quality:g}"
    print(f"{'category':<{width}}{'images':>8}{'mean':>8}{below:>14}{'prompts to fill':>18}")
    for name, count in {**by_category, "all": together}.items():
        share = f"{count.num_below} ({count.num_below / count.num_images:.0%})"
        fill = "none is kept" if count.num_to_fill is None else str(count.num_to_fill)
        print(f"{name:<{width}}{count.num_images:>8}{count.mean_quality:>8.3f}{share:>14}{fill:>18}")
    if together.num_below:
        print(
            f"Set synthesis.redraw_below to {args.min_quality:g} to draw these images again, or segmenter.min_quality "
            "to leave them out of training."
        )


def _as_json(count: QualityCount) -> dict[str, Any]:
    return {**vars(count), "num_to_fill": count.num_to_fill}
