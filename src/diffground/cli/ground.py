"""`diffground ground`: one image of any prompt and a mask for each of its words, as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffground.data.overlay import draw_masks
from diffground.data.shards import encode_mask, encode_png
from diffground.interface.pipeline import load_pipeline
from diffground.interface.results import write_results
from diffground.reproduction.config import Params


def ground(
    prompt: str,
    words: Sequence[str],
    *,
    textual_inversions: Sequence[tuple[str | None, Path]],
    seed: int,
    grounding: Path | None,
    threshold: float,
    out: Path,
    params: Params,
    allow_other_generator: bool = False,
) -> list[Path]:
    """Sample one image and write `out` (the image and its masks), the image without masks, and one mask per word.

    textual_inversions: word, or None for the one in the file, and file.
    grounding: model folder; None: DAAM's heat maps.
    threshold: score in 0..1 from which a pixel belongs to its likeliest word.
    `out` "cow.png" gives cow.png, cow.image.png and cow.<word>.png for each word. Returns the files written.
    Raises: UserError as GroundedPipeline does, and for a file that cannot be written.
    """
    pipeline = load_pipeline(
        params,
        grounding=grounding,
        textual_inversions=textual_inversions,
        allow_other_generator=allow_other_generator,
    )
    [sample] = pipeline(
        prompt,
        words=list(words),
        seeds=[seed],
        sampling=params.generator.sampling,
        mask_threshold=threshold,
    )
    image, masks = np.asarray(sample.image), sample.masks
    contents = {out.with_name(f"{out.stem}.{_in_file_name(w)}.png"): encode_mask(masks[i]) for i, w in enumerate(words)}
    contents[out.with_suffix(".image.png")] = encode_png(image)
    contents[out] = encode_png(draw_masks(image, masks))
    write_results(contents)
    # DAAM's heat maps all have the highest value 1
    highest = [f", highest probability {probs.max():.2f}" if grounding else "" for probs in sample.probs]
    for i, word in enumerate(words):
        print(f"{word}: {masks[i].mean():.1%} of the image{highest[i]}")
    print(f"{out}: image with masks; next to it: {', '.join(path.name for path in contents if path != out)}")
    return list(contents)


def _in_file_name(word: str) -> str:
    return re.sub(r"[\s/\\]", "_", word)
