"""`diffground ground` for several images: a folder with image, mask, overlay and record of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffground.cli.pipeline import load_pipeline
from diffground.cli.results import describe_words, encode_index_mask, encode_record, versions, write_results
from diffground.cli.samples import FILES, Samples
from diffground.data.overlay import paint_masks
from diffground.data.shards import encode_png
from diffground.errors import UserError, in_one_line
from diffground.grounded import GroundedPipeline
from diffground.reproduction.config import Params
from diffground.runtime.progress import Progress


def ground_many(
    samples: Samples,
    *,
    finished: bytearray,
    textual_inversions: Sequence[tuple[str | None, Path]],
    grounding: Path | None,
    threshold: float,
    params: Params,
    allow_other_generator: bool,
    batch_size: int,
) -> None:
    """Sample what is not `finished`, and write it sample by sample: memory does not grow with their number.

    Arguments as those of cli.ground.ground. Raises: UserError as GroundedPipeline does, and for a folder that cannot
    be written.
    """
    pipeline = load_pipeline(
        params,
        grounding=grounding,
        textual_inversions=textual_inversions,
        allow_other_generator=allow_other_generator,
    )
    _check_lengths(pipeline, samples.prompts)
    places = {prompt: place for place, prompt in enumerate(samples.prompts)}
    todo = (sample for i, sample in enumerate(samples) if not finished[i])
    used, shown_in = versions(), Counter[str]()
    num_before = sum(finished)
    with Progress(len(samples), description="ground", initial=num_before) as progress:
        for found in pipeline.stream(
            samples.prompts,
            words=samples.words,
            samples=todo,
            sampling=params.generator.sampling,
            mask_threshold=threshold,
            batch_size=batch_size,
        ):
            place, seed, image = places[found.prompt], int(found.seed or 0), np.asarray(found.image)
            described = describe_words(found.words, found.masks, found.probs)
            settings = samples.settings_of(place, seed)
            record = {"prompt": found.prompt, "seed": seed, "words": described, "settings": settings, "versions": used}
            contents = (
                encode_png(image),
                encode_index_mask(found.masks),
                encode_png(paint_masks(image, found.masks)),
                encode_record(record),
            )
            folder = samples.folder(place, seed)
            write_results({folder / name: content for name, content in zip(FILES, contents, strict=True)})
            shown_in.update(dict.fromkeys(found.words, 0))
            shown_in.update(entry["word"] for entry in described if entry["area"])
            progress.advance()
    num_done = len(samples) - num_before
    for word, num in shown_in.items():
        print(f"{word}: in {num} of {num_done} images")
    print(f"{samples.out}: {num_done} image{'' if num_done == 1 else 's'} done")


def _check_lengths(pipeline: GroundedPipeline, prompts: Sequence[str]) -> None:
    """Raises: UserError for a prompt that is too long, before the first image instead of at its own."""
    tokenizer = pipeline.generator.tokenizer
    limit = tokenizer.model_max_length
    for prompt in prompts:
        num = len(tokenizer(prompt, truncation=False, verbose=False).input_ids)
        if num > limit:
            raise UserError(f"prompt must fit into {limit} tokens, got {num}: '{in_one_line(prompt)}'; shorten it")
