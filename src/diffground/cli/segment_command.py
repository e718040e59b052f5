"""The arguments of `diffground segment`, checked without weights."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffground import __version__
from diffground.cli.segment import Finder, segment
from diffground.errors import UserError
from diffground.interface.words import check_asked, check_length, token_limit
from diffground.model_folders import check_grounding_folder, check_pipeline_folder
from diffground.prompts import check_words
from diffground.reproduction import paths
from diffground.reproduction.config import load_params
from diffground.runtime.fingerprint import checkpoint_fingerprint, generator_fingerprint
from diffground.runtime.instruction_set import limit_instruction_set
from diffground.runtime.openmp import wait_briefly
from diffground.vocabulary import closest, load_vocabulary, photograph_of


def run_segment(args: argparse.Namespace, *, grounding: Path) -> bool:
    """Returns: whether all images could be read. Raises: UserError for arguments that do not fit."""
    check_asked(args.category)
    words, settings, load_finder = _with_segmenter(args) if args.segmenter else _with_grounding(args, grounding)
    return segment(
        args.images, words=words, settings=settings, out=args.out, overwrite=args.overwrite, load_finder=load_finder
    )


_Plan = tuple[Sequence[str], dict[str, Any], Callable[[], Finder]]


def _with_grounding(args: argparse.Namespace, grounding: Path) -> _Plan:
    if not args.category:
        raise UserError("-c/--category WORDS is needed: the words to find; or give --with SEGMENTER_FOLDER")
    if args.threshold is not None and not 0 < args.threshold <= 1:
        raise UserError(f"--threshold must be above 0 and at most 1, got {args.threshold:g}")
    prompt = photograph_of(*args.category) if args.prompt is None else args.prompt
    check_words(prompt, args.category)
    params = load_params(paths.PARAMS)
    g = params.generator
    check_pipeline_folder(g.checkpoint, config_from=g.config_from, loras=g.loras)
    remedy = "shorten it" if args.prompt else "ask for fewer words at a time"
    check_length(prompt, limit=token_limit(params.generator.checkpoint), remedy=remedy)
    check_grounding_folder(grounding)
    threshold = params.grounding.mask_threshold if args.threshold is None else args.threshold
    settings = {
        "diffground": __version__,
        "method": "inversion and grounding module",
        "words": args.category,
        "prompt": prompt,
        "mask_threshold": threshold,
        "generator": generator_fingerprint(g.checkpoint, config_from=g.config_from, loras=g.loras),
        "grounding": checkpoint_fingerprint(grounding),
        "image_size": params.generator.image_size,
        "dtype": params.generator.dtype,
    }

    def load_finder() -> Finder:
        wait_briefly()
        limit_instruction_set(params.runtime.instruction_set)
        from diffground.interface.pipeline import load_pipeline

        pipeline = load_pipeline(params, grounding=grounding, allow_other_generator=args.allow_other_generator)

        def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            sample = pipeline.segment(image, words=args.category, prompt=args.prompt, mask_threshold=threshold)
            return sample.masks, sample.probs

        return find

    return args.category, settings, load_finder


def _with_segmenter(args: argparse.Namespace) -> _Plan:
    given = {
        "--prompt": args.prompt is not None,
        "--threshold": args.threshold is not None,
        "--grounding": args.grounding is not None,
        "--allow-other-generator": args.allow_other_generator,
    }
    unused = [option for option, is_given in given.items() if is_given]
    if unused:
        raise UserError(f"{unused[0]} has no effect with --with, which uses no generator; leave one of them out")
    categories = _categories_of(args.segmenter)
    chosen = [_category(words, categories, args.segmenter) for words in args.category] or list(categories)
    check_asked(chosen)
    runtime = load_params(paths.PARAMS).runtime if paths.PARAMS.is_file() else None
    settings = {
        "diffground": __version__,
        "method": "segmenter",
        "words": chosen,
        "segmenter": checkpoint_fingerprint(args.segmenter),
    }

    def load_finder() -> Finder:
        wait_briefly()
        if runtime:
            limit_instruction_set(runtime.instruction_set)
        from diffground.runtime.device import setup
        from diffground.segmentation.pipeline import load_segmenter

        # without params.yaml, a GPU is used where there is one
        segmenter = load_segmenter(args.segmenter, device=str(setup(runtime)) if runtime else "auto")
        labels = [1 + segmenter.categories.index(category) for category in chosen]

        def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            [result] = segmenter.predict([image])
            return np.stack([result.labels == label for label in labels]), result.scores[labels]

        return find

    return chosen, settings, load_finder


def _categories_of(folder: Path) -> list[str]:
    """The categories of a segmenter, without its weights. Raises: UserError for a folder that is none."""
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(
                f"--with {folder}: no segmenter ({name} is missing); give a folder such as {paths.SHIPPED}/segmenter"
            )
    try:
        categories = json.loads((folder / "config.json").read_text(encoding="utf-8"))["categories"]
        if not isinstance(categories, list) or not categories or not all(isinstance(c, str) for c in categories):
            raise ValueError("categories must be a list of names")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--with {folder}: config.json is not that of a segmenter ({error}); give a folder such as "
            f"{paths.SHIPPED}/segmenter"
        ) from None
    return categories


def _category(words: str, categories: Sequence[str], folder: Path) -> str:
    """The category that -c names, by its name or by its words in a prompt ("potted plant")."""
    phrases = load_vocabulary("coco").phrases
    by_words = {phrases.get(category, category): category for category in categories}
    found = by_words.get(words, words)
    if found not in categories:
        raise UserError(
            f"-c {words}: not one of the {len(categories)} categories of {folder}; closest: "
            f"{closest(words, categories)}. Known: {', '.join(categories)}"
        )
    return found
