"""The colours of PASCAL VOC label images."""

from __future__ import annotations

import numpy as np

IGNORE = 255
"""Label of pixels that are ignored: neither trained on nor scored."""


def _voc_palette() -> np.ndarray:
    """The devkit's rule: the bits of a label, three at a time, fill red, green and blue from the highest bit down."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    for label in range(256):
        bits = label
        for shift in range(7, -1, -1):
            for channel in range(3):
                palette[label, channel] |= ((bits >> channel) & 1) << shift
            bits >>= 3
    return palette


VOC_PALETTE = _voc_palette()
"""uint8 (256, 3), RGB of every label; label 255 is (224, 224, 192)."""
