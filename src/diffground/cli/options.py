"""The options of `diffground ground` and `diffground segment`."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffground.cli import actions
from diffground.reproduction import paths


def add_ground(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "prompts", nargs="*", metavar="PROMPT", help='one or more, e.g. "a photograph of a unicorn and a dog"'
    )
    parser.add_argument(
        "--prompts",
        dest="prompt_file",
        type=Path,
        metavar="FILE",
        help="text file with one prompt per line; blank lines and lines that start with # do not count",
    )
    parser.add_argument(
        "-c",
        "--category",
        action="append",
        default=[],
        metavar="WORDS",
        help="words of the prompt; may be repeated. With several prompts, each prompt uses the words that it contains. "
        "Default: the words of the profile's vocabulary that the prompt contains",
    )
    parser.add_argument(
        "--word",
        action="append",
        default=[],
        metavar="[WORD=]FILE",
        help="textual inversion (safetensors) of a new word; give WORD if the file has another name for it; may be "
        "repeated",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the (first) image's noise; default: %(default)s")
    parser.add_argument(
        "-n", "--num", type=int, default=1, metavar="N", help="images per prompt, with seeds SEED, SEED + 1, …"
    )
    parser.add_argument(
        "--method",
        choices=("grounding", "daam"),
        default="grounding",
        help="method that finds the words: the grounding module (default), or the baseline DAAM",
    )
    add_grounding(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="lowest score of a pixel that belongs to a word, 0..1; default: grounding.mask_threshold, for DAAM the "
        "threshold that evaluate_grounding chose",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        help="for one image: file of the overlay (default ground.png); image and masks are written next to it. For "
        "several, or if OUT has no ending: folder (default grounded) with image, mask, overlay and meta.json of each",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="images sampled at once; changes the speed, and the images only by rounding errors; default: %(default)s",
    )
    add_overwrite(parser)
    parser.set_defaults(run=actions.ground)


def add_segment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="files, folders with their subfolders (without hidden files and links to folders), or quoted patterns",
    )
    parser.add_argument(
        "-c",
        "--category",
        action="append",
        default=[],
        metavar="WORDS",
        help="words to find; may be repeated. With --with: categories to keep, default all",
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("segmented"), metavar="DIR", help="folder to write; default: %(default)s"
    )
    parser.add_argument(
        "--prompt", metavar="CAPTION", help='what the images show, with the words in it; default: "a photograph of …"'
    )
    parser.add_argument(
        "--with",
        dest="segmenter",
        type=Path,
        metavar="SEGMENTER_FOLDER",
        help=f"use a trained segmenter, e.g. {paths.SHIPPED}/segmenter, instead of the grounding module",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="lowest probability of a pixel that belongs to a word, 0..1; default: grounding.mask_threshold",
    )
    add_grounding(parser)
    add_overwrite(parser)
    parser.set_defaults(run=actions.segment)


def add_studio(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other machines in, without a password; default: %(default)s",
    )
    parser.add_argument(
        "--port", type=int, default=7860, help="port to listen on; 0: any that is free; default: %(default)s"
    )
    parser.add_argument(
        "--grounding",
        type=Path,
        metavar="FOLDER",
        help=f"grounding module; default: {paths.GROUNDING_MODEL}, or before a reproduction {paths.SHIPPED}/grounding",
    )
    parser.add_argument(
        "--segmenter",
        type=Path,
        metavar="FOLDER",
        help=f"segmenter; default: {paths.SEGMENTERS}/synthetic, or before a reproduction {paths.SHIPPED}/segmenter",
    )
    parser.set_defaults(run=actions.studio)


def add_grounding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grounding",
        type=Path,
        metavar="FOLDER",
        help=f"grounding module, e.g. of import-released; default: {paths.GROUNDING_MODEL}, or before a reproduction "
        f"{paths.SHIPPED}/grounding",
    )
    parser.add_argument(
        "--allow-other-generator",
        action="store_true",
        help="use a grounding module that was trained on another generator",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="repeat images that an earlier run finished with the same settings"
    )
