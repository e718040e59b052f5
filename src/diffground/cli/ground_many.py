"""`diffground ground` for several images: a folder with image, mask, overlay and record of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError, in_one_line
from diffground.grounded import GroundedPipeline
from diffground.interface.ground_files import ground_files
from diffground.interface.results import versions, write_results
from diffground.interface.samples import Samples
from diffground.runtime.progress import Progress


def ground_many(
    pipeline: GroundedPipeline,
    samples: Samples,
    *,
    finished: bytearray,
    sampling: Sampling,
    threshold: float,
    batch_size: int,
) -> None:
    """Sample what is not `finished`, and write it sample by sample: memory does not grow with their number.

    threshold: as in cli.ground.ground. Raises: UserError as GroundedPipeline does, and for a folder that cannot be
    written.
    """
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
            sampling=sampling,
            mask_threshold=threshold,
            batch_size=batch_size,
        ):
            place, seed, image = places[found.prompt], int(found.seed or 0), np.asarray(found.image)
            contents, described = ground_files(
                image,
                found.words,
                found.masks,
                found.probs,
                prompt=found.prompt,
                seed=seed,
                settings=samples.settings_of(place, seed),
                versions=used,
            )
            folder = samples.folder(place, seed)
            write_results({folder / name: content for name, content in contents.items()})
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
