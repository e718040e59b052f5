"""A trained segmenter for images as users have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffground.data.images import ImageLike, read_image
from diffground.data.overlay import paint_masks
from diffground.runtime.device import pick_device
from diffground.segmentation.maskformer import MaskFormerSegmenter


@dataclass(frozen=True)
class Segmentation:
    """One image and its label map."""

    image: Image.Image
    """RGB."""
    labels: np.ndarray
    """uint8 (H, W): 0 background, i the i-th of `categories`."""
    scores: np.ndarray
    """float32 (K + 1, H, W), 0 or more, larger is likelier; row 0 is the background."""
    categories: tuple[str, ...]

    def overlay(self, *, opacity: float = 0.55) -> Image.Image:
        """The image with its labels painted in the colours of the VOC palette, in its own size; opacity in 0..1."""
        masks = np.stack([self.labels == i + 1 for i in range(len(self.categories))])
        return Image.fromarray(paint_masks(np.asarray(self.image), masks, opacity=opacity))


class SegmenterPipeline:
    """A trained segmenter, frozen.

    Example, in a clone of the repository:

    >>> from diffground import load_segmenter
    >>> segmenter = load_segmenter("models/mini/segmenter")
    >>> result = segmenter.predict(["reports/figures/real.png"])[0]
    >>> result.labels.shape == (result.image.height, result.image.width)
    True
    """

    def __init__(self, segmenter: MaskFormerSegmenter) -> None:
        self._segmenter = segmenter

    @property
    def categories(self) -> tuple[str, ...]:
        """In label order: category i has label i + 1, 0 is the background."""
        return self._segmenter.categories

    def predict(self, images: ImageLike | Sequence[ImageLike]) -> list[Segmentation]:
        """Label each pixel of one or several images (paths, PIL images or arrays; sizes may differ).

        Raises: UserError for an image that cannot be read.
        """
        several = [images] if isinstance(images, str | Path | Image.Image) else images
        if isinstance(several, np.ndarray) and several.ndim < 4:
            several = [several]
        pixels = [read_image(image) for image in several]
        return [
            Segmentation(
                image=Image.fromarray(image),
                labels=scores.argmax(axis=0).astype(np.uint8),
                scores=scores,
                categories=self.categories,
            )
            for image, scores in zip(pixels, self._segmenter.predict(pixels), strict=True)
        ]


def load_segmenter(folder: str | Path, *, device: str = "auto") -> SegmenterPipeline:
    """Read a model folder of stage train_maskformer or of `diffground import-maskformer`.

    device: 'auto' (a GPU where there is one), 'cpu', 'cuda', 'cuda:1'.
    Raises: UserError, one line, for a folder that is missing, incomplete or damaged, and a device that is not there.
    """
    return SegmenterPipeline(MaskFormerSegmenter.load(Path(folder), device=pick_device(device)))
