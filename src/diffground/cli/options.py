"""The options of the commands that have several, and of those that exchange weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffground.cli import actions
from diffground.cli.help import CommandGroups
from diffground.reproduction import paths


def add_ground(commands: CommandGroups) -> None:
    parser = commands.add_parser("ground", actions.ground, help="generate images and segment words in them")
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
    _add_words(
        parser,
        "words of the prompt; may be repeated. With several prompts, each prompt uses the words that it contains. "
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
    _add_grounding(parser)
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
    _add_overwrite(parser)


def add_segment(commands: CommandGroups) -> None:
    parser = commands.add_parser("segment", actions.segment, help="find words in your own images")
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="files, folders with their subfolders (without hidden files and links to folders), or quoted patterns",
    )
    _add_words(parser, "words to find; may be repeated. With --with: categories to keep, default all")
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
    _add_grounding(parser)
    _add_overwrite(parser)


def add_studio(commands: CommandGroups) -> None:
    parser = commands.add_parser("studio", actions.studio, help="generate, segment, review and export in a browser")
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


def add_new(commands: CommandGroups) -> None:
    parser = commands.add_parser(
        "new", actions.new, help="own categories: write a vocabulary and a profile, and estimate the time of a run"
    )
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


def add_exchange(commands: CommandGroups) -> None:
    """The commands of group "exchange"."""
    released = commands.add_parser(
        "import-released", actions.import_released, help="convert the paper authors' weights to a model folder"
    )
    released.add_argument("file", type=Path, help="the published file, grounding_module.pth")
    read_from = f"model folder to write; `ground --grounding FOLDER` reads it, the stages read {paths.GROUNDING_MODEL}"
    released.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help=read_from)

    imported = commands.add_parser(
        "import-maskformer", actions.import_maskformer, help="convert weights of the official MaskFormer to a segmenter"
    )
    imported.add_argument("file", type=Path, metavar="MODEL.pth", help="a checkpoint of the authors' train_net.py")
    read_by = f"model folder to write; the stages read {paths.SEGMENTERS}/TRAINING_SET"
    imported.add_argument("folder", type=Path, metavar="FOLDER", help=read_by)

    exported = commands.add_parser(
        "export-maskformer",
        actions.export_maskformer,
        help="write a segmenter's weights for the official MaskFormer; `export` writes data sets",
    )
    onnx = commands.add_parser(
        "export-onnx",
        actions.export_onnx,
        help="write a segmenter's weights as one ONNX file, for any batch size; `export` writes data sets",
    )
    a_segmenter = f"a segmenter, e.g. {paths.SEGMENTERS}/synthetic"
    for parser in (exported, onnx):
        parser.add_argument("folder", type=Path, metavar="FOLDER", help=a_segmenter)
    exported.add_argument(
        "file", type=Path, metavar="MODEL.pth", help="file to write; its settings are written to MODEL.yaml next to it"
    )
    onnx.add_argument("file", type=Path, metavar="FILE.onnx", help="file to write")


def _add_grounding(parser: argparse.ArgumentParser) -> None:
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


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="repeat images that an earlier run finished with the same settings"
    )


def _add_words(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-c", "--category", action="append", default=[], metavar="WORDS", help=what)
