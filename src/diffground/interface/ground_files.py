"""The files of one sample of `diffground ground`, and the settings that decide it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from diffground import __version__
from diffground.data.overlay import paint_masks
from diffground.data.shards import encode_png
from diffground.diffusion.sampling import Sampling
from diffground.interface.results import describe_words, encode_index_mask, encode_record
from diffground.interface.samples import FILES
from diffground.reproduction.config import Params
from diffground.runtime.fingerprint import checkpoint_fingerprint, generator_fingerprint


def ground_settings(
    params: Params,
    *,
    grounding: Path | None,
    inversions: Sequence[tuple[str | None, Path]] = (),
    threshold: float,
    sampling: Sampling | None = None,
) -> dict[str, Any]:
    """All that decides a sample in addition to its prompt, words and seed. sampling: None: that of `params`."""
    p = params.generator
    return {
        "diffground": __version__,
        "generator": generator_fingerprint(p.checkpoint, config_from=p.config_from, loras=p.loras),
        "image_size": p.image_size,
        "dtype": p.dtype,
        "sampling": asdict(sampling or p.sampling),
        "method": "grounding module" if grounding else "DAAM",
        "grounding": checkpoint_fingerprint(grounding) if grounding else None,
        "mask_threshold": threshold,
        "textual_inversions": [[word, hashlib.sha256(file.read_bytes()).hexdigest()] for word, file in inversions],
    }


def ground_files(
    image: np.ndarray,
    words: Sequence[str],
    masks: np.ndarray,
    scores: np.ndarray,
    *,
    prompt: str,
    seed: int,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """One of FILES -> its content, in this order; and what its record says of each word, see describe_words.

    Args: image uint8 (H, W, 3); masks bool (Q, H, W), disjoint; scores float32 (Q, H, W).
    """
    described = describe_words(words, masks, scores)
    record = {"prompt": prompt, "seed": seed, "words": described, "settings": settings, "versions": versions}
    contents = (
        encode_png(image),
        encode_index_mask(masks),
        encode_png(paint_masks(image, masks)),
        encode_record(record),
    )
    return dict(zip(FILES, contents, strict=True)), described
