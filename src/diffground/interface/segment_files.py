"""The files of one image of `diffground segment`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffground.data.overlay import paint_masks
from diffground.data.shards import encode_png
from diffground.interface.results import describe_words, encode_index_mask, encode_record

ENDINGS = (".mask.png", ".overlay.png", ".json")
"""Of the files of an image, after its name. The last one says that the others are there."""


def segment_files(
    pixels: np.ndarray,
    words: Sequence[str],
    masks: np.ndarray,
    scores: np.ndarray,
    *,
    image: str,
    settings: Mapping[str, Any],
) -> tuple[tuple[bytes, bytes, bytes], list[dict[str, Any]]]:
    """The contents in the order of ENDINGS, and what the record says of each word, see describe_words.

    Args: pixels uint8 (H, W, 3); masks bool (Q, H, W), disjoint; scores float32 (Q, H, W); image: its name in the
        record.
    """
    described = describe_words(words, masks, scores)
    record = {
        "image": image,
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "words": described,
        "settings": settings,
    }
    return (encode_index_mask(masks), encode_png(paint_masks(pixels, masks)), encode_record(record)), described
