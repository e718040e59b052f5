"""Which real images the grounding module is trained or evaluated on, and with which prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from diffground.data.voc import VocDataset
from diffground.errors import UserError
from diffground.prompts import PromptRecord, group_of
from diffground.runtime.progress import Progress
from diffground.vocabulary import Vocabulary, photograph_of

MAX_CATEGORIES = 2
"""A prompt of the paper names one category or two."""


@dataclass(frozen=True)
class RealImage:
    """One image of a VocDataset, and the prompt that it is inverted with."""

    index: int
    """Its place in the dataset."""
    record: PromptRecord


@dataclass(frozen=True)
class RealImages:
    """What plan_real_images chose of a dataset."""

    images: tuple[RealImage, ...]
    digest: str
    """SHA-256 over the images and labels that were looked at, at image size."""
    num_skipped: int
    """Images looked at that show no category which may be named."""
    num_cut: int
    """Images that show more such categories than their prompt names."""


def plan_real_images(
    dataset: VocDataset,
    *,
    num_images: int,
    vocabulary: Vocabulary,
    named: Sequence[str],
    min_area_frac: float,
    image_size: int,
) -> RealImages:
    """Which images to invert, with which prompts: "a photograph of a dog and a cat".

    A prompt names the image's categories of `named`, the largest first, and at most MAX_CATEGORIES; its other
    categories stay in the label map but are not named. Images without any are skipped. Of the others the
    first `num_images` are taken, in the order of the dataset, or all if there are fewer.
    Raises: UserError when there is none, for an unknown category, and for an area out of range.
    """
    if not 0 <= min_area_frac <= 1:
        raise UserError(f"min_area_frac must be 0 to 1, got {min_area_frac}")
    labels = {category: vocabulary.index(category) + 1 for category in named}
    images, num_skipped, num_cut, digest = list[RealImage](), 0, 0, hashlib.sha256()
    with Progress(min(num_images, len(dataset)), description="read labels") as progress:
        for i in range(len(dataset)):
            if len(images) == num_images:
                break
            image, label = squeeze(*dataset[i], image_size=image_size)
            digest.update(image.tobytes() + label.tobytes())
            areas = {category: int((label == value).sum()) for category, value in labels.items()}
            large = [c for c in areas if areas[c] > 0 and areas[c] >= min_area_frac * label.size]
            large.sort(key=lambda c: (-areas[c], labels[c]))
            if not large:
                num_skipped += 1
                continue
            num_cut += len(large) > MAX_CATEGORIES
            images.append(RealImage(index=i, record=_record(dataset.ids[i], large[:MAX_CATEGORIES], vocabulary)))
            progress.advance()
    if not images and num_images > 0:
        raise UserError(
            f"data: none of {len(dataset)} images shows one of {', '.join(named)} on {min_area_frac:.0%} of its area; "
            f"take another image list"
        )
    return RealImages(images=tuple(images), digest=digest.hexdigest(), num_skipped=num_skipped, num_cut=num_cut)


def squeeze(image: np.ndarray, label: np.ndarray, *, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The whole image uint8 (H, W, 3) and its label uint8 (H, W), resized to squares of `image_size` px.

    Nothing is cropped, since objects at the border would be lost; segmenters are given images the same way.
    """
    size = (image_size, image_size)
    if label.shape == size:
        return image, label
    resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    return np.array(resized), np.array(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))


def _record(image_id: str, categories: Sequence[str], vocabulary: Vocabulary) -> PromptRecord:
    return PromptRecord(
        id=f"real-{image_id}",
        prompt=photograph_of(*(vocabulary.phrases[c] for c in categories)),
        categories=tuple(categories),
        group=group_of(categories, vocabulary),
        seed=0,  # no noise is drawn
        source="template",
    )
