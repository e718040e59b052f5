"""What finds words in an image for `diffground segment`: the grounding module, or a trained segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffground.cli.segment import Finder
from diffground.interface.pipeline import load_pipeline
from diffground.reproduction.config import Params
from diffground.runtime.config import RuntimeConfig
from diffground.runtime.device import setup
from diffground.segmentation.pipeline import load_segmenter


def grounding_finder(
    words: Sequence[str],
    *,
    prompt: str | None,
    threshold: float,
    grounding: Path,
    params: Params,
    allow_other_generator: bool,
) -> Finder:
    """DDIM inversion and the grounding module. Arguments and errors as those of GroundedPipeline.segment."""
    pipeline = load_pipeline(
        params,
        grounding=grounding,
        allow_other_generator=allow_other_generator,
    )

    def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sample = pipeline.segment(image, words=list(words), prompt=prompt, mask_threshold=threshold)
        return sample.masks, sample.probs

    return find


def segmenter_finder(folder: Path, categories: Sequence[str], *, runtime: RuntimeConfig | None) -> Finder:
    """A segmenter of `folder`, of whose label map the `categories` are kept. Without `runtime`, a GPU is used where
    there is one. Raises: UserError as load_segmenter does."""
    device = str(setup(runtime)) if runtime else "auto"
    segmenter = load_segmenter(folder, device=device)
    labels = [1 + segmenter.categories.index(category) for category in categories]

    def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        [result] = segmenter.predict([image])
        return np.stack([result.labels == label for label in labels]), result.scores[labels]

    return find
