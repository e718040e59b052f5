"""`diffground ground`: one image of any prompt and a mask for each of its words, as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffground.data.overlay import draw_masks
from diffground.data.shards import encode_mask, encode_png
from diffground.diffusion.sampling import Sampling
from diffground.grounded import GroundedPipeline
from diffground.interface.results import write_results


def ground(
    pipeline: GroundedPipeline,
    prompt: str,
    words: Sequence[str],
    *,
    seed: int,
    sampling: Sampling,
    threshold: float,
    out: Path,
) -> None:
    """Sample one image and write `out` (the image and its masks), the image without masks, and one mask per word.

    threshold: score in 0..1 from which a pixel belongs to its likeliest word.
    `out` "cow.png" gives cow.png, cow.image.png and cow.<word>.png for each word.
    Raises: UserError as GroundedPipeline does, and for a file that cannot be written.
    """
    [sample] = pipeline(prompt, words=list(words), seeds=[seed], sampling=sampling, mask_threshold=threshold)
    image, masks = np.asarray(sample.image), sample.masks
    names = [re.sub(r"[\s/\\]", "_", word) for word in words]
    contents = {out.with_name(f"{out.stem}.{name}.png"): encode_mask(masks[i]) for i, name in enumerate(names)}
    contents[out.with_suffix(".image.png")] = encode_png(image)
    contents[out] = encode_png(draw_masks(image, masks))
    write_results(contents)
    has_probs = pipeline.defaults is not None  # DAAM's heat maps all have the highest value 1
    highest = [f", highest probability {probs.max():.2f}" if has_probs else "" for probs in sample.probs]
    for i, word in enumerate(words):
        print(f"{word}: {masks[i].mean():.1%} of the image{highest[i]}")
    print(f"{out}: image with masks; next to it: {', '.join(path.name for path in contents if path != out)}")
