"""The command line: `diffground profile NAME`, `diffground ground "a photograph of a dog" -c dog`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from diffground import paths
from diffground.entry_point import run_entry_point
from diffground.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0, or 2 with one line on stderr."""
    args = _parser().parse_args(arguments)
    sys.exit(run_entry_point(lambda: args.run(args), resume_with=f"diffground {args.command}"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="diffground", description="Masks for any words from a text-to-image model.")
    commands = parser.add_subparsers(dest="command", required=True)

    profile = commands.add_parser("profile", help="compose conf/ into params.yaml")
    profile.add_argument("name", help="a file of conf/profile: mini, smoke, paper_voc")
    profile.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. grounding.iterations=100")
    profile.set_defaults(run=_profile)

    ground = commands.add_parser("ground", help="generate an image and segment words in it")
    ground.add_argument("prompt", help='e.g. "a photograph of a unicorn and a dog"')
    ground.add_argument(
        "-c", "--category", action="append", required=True, metavar="WORDS", help="words of the prompt; may be repeated"
    )
    ground.add_argument("--seed", type=int, default=0, help="seed of the image's noise")
    ground.add_argument("-o", "--out", type=Path, default=Path("ground.png"), help="overlay image (PNG)")
    ground.set_defaults(run=_ground)
    return parser


def _profile(args: argparse.Namespace) -> None:
    from diffground.profile import compose_params, write_params

    text = compose_params(args.name, conf=Path("conf"), overrides=args.overrides)
    if args.name == "smoke":
        from diffground.smoke import build_components

        build_components(Path("models/smoke"))
    write_params(text, paths.PARAMS)
    print(f"{paths.PARAMS}: profile '{args.name}'")


def _ground(args: argparse.Namespace) -> None:
    from diffground.config import load_params

    if args.seed < 0:
        raise UserError(f"--seed must not be negative, got {args.seed}")
    params = load_params(paths.PARAMS)
    # imported late: torch takes seconds, a wrong argument should not
    from diffground.grounding.free_form import ground_image

    ground_image(args.prompt, args.category, seed=args.seed, out=args.out, params=params)
