"""The arguments of `diffground ground`, checked without weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffground.cli.image_files import IMAGE_SUFFIXES
from diffground.errors import UserError
from diffground.interface.ground_files import ground_settings
from diffground.interface.results import check_out_folder
from diffground.interface.samples import Samples
from diffground.interface.words import check_length, gather_prompts, token_limit, words_of_prompts
from diffground.model_folders import check_grounding_folder, check_inversion_file, check_pipeline_folder
from diffground.reproduction import paths
from diffground.reproduction.config import Params, load_params
from diffground.reproduction.metrics import read_metrics
from diffground.runtime.instruction_set import limit_instruction_set
from diffground.runtime.openmp import wait_briefly

if TYPE_CHECKING:
    from diffground.grounded import GroundedPipeline

MAX_IMAGES = 1_000_000
"""Per prompt."""
_LARGEST_SEED = 2**63 - 1
_ONE, _SEVERAL = Path("ground.png"), Path("grounded")
"""Where the results are written by default: of one image, of several."""


def run_ground(args: argparse.Namespace, *, grounding: Path, inversions: Sequence[tuple[str | None, Path]]) -> None:
    """Raises: UserError for arguments that do not fit, before torch is imported."""
    _check_numbers(args)
    prompts, notes = gather_prompts(args.prompts, args.prompt_file)
    is_several = len(prompts) * args.num > 1 or args.prompt_file is not None
    is_folder = is_several or (args.out is not None and not args.out.suffix)
    out = args.out or (_SEVERAL if is_several else _ONE)
    _check_out_name(out, is_folder=is_folder)
    params = load_params(paths.PARAMS)
    g = params.generator
    check_pipeline_folder(g.checkpoint, config_from=g.config_from, loras=g.loras)
    if args.method == "grounding":
        check_grounding_folder(grounding)
    for _, file in inversions:
        check_inversion_file(file)
    words_of = words_of_prompts(
        prompts,
        args.category,
        phrases=params.vocabulary.load().phrases,
        has_inversions=bool(inversions),
    )
    for prompt in prompts:
        check_length(prompt, limit=token_limit(params.generator.checkpoint))
    threshold = _threshold(args, params)
    check_out_folder(out if is_folder else out.parent)
    for note in notes:
        print(note, file=sys.stderr)
    if not args.category:
        for prompt, words in zip(prompts, words_of, strict=True):
            print(f"words: {', '.join(words)}{f' ({prompt})' if len(prompts) > 1 else ''}", flush=True)
    chosen = grounding if args.method == "grounding" else None
    sampling = params.generator.sampling

    def load() -> GroundedPipeline:
        """Called after the checks: torch and diffusers take seconds."""
        limit_instruction_set(params.runtime.instruction_set)
        from diffground.interface.pipeline import load_pipeline

        return load_pipeline(
            params,
            grounding=chosen,
            textual_inversions=inversions,
            allow_other_generator=args.allow_other_generator,
        )

    wait_briefly()
    if not is_folder:
        pipeline = load()
        from diffground.cli.ground import ground

        ground(pipeline, prompts[0], words_of[0], seed=args.seed, sampling=sampling, threshold=threshold, out=out)
        return
    samples = Samples(
        prompts,
        words_of,
        seeds=range(args.seed, args.seed + args.num),
        out=out,
        settings=ground_settings(params, grounding=chosen, inversions=inversions, threshold=threshold),
    )
    finished = bytearray(len(samples)) if args.overwrite else samples.finished()
    if any(finished):
        print(f"skipped: {sum(finished)} finished with these settings before; --overwrite repeats them", flush=True)
    if not all(finished):
        pipeline = load()
        from diffground.cli.ground_many import ground_many

        ground_many(
            pipeline, samples, finished=finished, sampling=sampling, threshold=threshold, batch_size=args.batch_size
        )


def _check_numbers(args: argparse.Namespace) -> None:
    if args.seed < 0:
        raise UserError(f"--seed must not be negative, got {args.seed}")
    if not 1 <= args.num <= MAX_IMAGES:
        raise UserError(f"-n must be 1 to {MAX_IMAGES}, got {args.num}")
    if args.seed + args.num - 1 > _LARGEST_SEED:
        raise UserError(f"--seed must be at most {_LARGEST_SEED}, so that all {args.num} seeds are, got {args.seed}")
    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {args.batch_size}")
    if args.threshold is not None and not 0 < args.threshold <= 1:
        raise UserError(f"--threshold must be above 0 and at most 1, got {args.threshold:g}")


def _check_out_name(out: Path, *, is_folder: bool) -> None:
    if is_folder and out.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"--out must be a folder for several images, got '{out}'; give a name without '{out.suffix}'")
    if not is_folder and out.suffix.lower() != ".png":
        raise UserError(f"--out must end in .png, got '{out}'")
    if not is_folder and out.is_dir():
        raise UserError(f"--out must be a file, but '{out}' is a folder; give another name")


def _threshold(args: argparse.Namespace, params: Params) -> float:
    """The one that is given; else that of params.yaml, for DAAM the one that stage evaluate_grounding chose."""
    if args.threshold is not None:
        return float(args.threshold)
    if args.method == "grounding":
        return params.grounding.mask_threshold
    path = paths.metrics_file("evaluate_grounding")
    threshold = read_metrics("evaluate_grounding").get("daam_threshold") if path.is_file() else None
    if not isinstance(threshold, float):
        raise UserError(
            f"{path}: no daam_threshold there; give --threshold, or run `dvc repro evaluate_grounding`, which fits it"
        )
    return threshold
