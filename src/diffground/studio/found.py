"""What a request found in one image, kept on the server so that a threshold can be moved without another pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffground.grounding.prediction import likeliest_word

Files = dict[str, bytes]
"""Name -> content."""


@dataclass(frozen=True)
class Found:
    """One image and its words. `maps` are probabilities, or with `is_fixed` masks that no threshold changes."""

    title: str
    image: np.ndarray
    """uint8 (H, W, 3)."""
    words: tuple[str, ...]
    maps: np.ndarray
    """float32 (Q, H, W) in 0..1: probability of each word; with `is_fixed` bool."""
    is_fixed: bool
    files_with: Callable[[np.ndarray, float], Files]
    """Masks and threshold -> the files to download."""

    def masks(self, threshold: float) -> np.ndarray:
        """bool (Q, H, W), disjoint. Words keep their place, whichever of them are shown."""
        return self.maps if self.is_fixed else likeliest_word(self.maps, mask_threshold=threshold)

    def files(self, threshold: float) -> Files:
        return self.files_with(self.masks(threshold), threshold)


def write_zip(found: Sequence[Found], path: Path, *, threshold: float) -> Path:
    """All files of all images as one ZIP, whose bytes depend on nothing else. Returns `path`."""
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for one in found:
            for name, content in one.files(threshold).items():
                archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content)
    return path
