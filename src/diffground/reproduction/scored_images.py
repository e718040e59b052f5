"""The images that segmenters are scored on."""

from __future__ import annotations

from diffground.data.voc import VocDataset
from diffground.reproduction import paths
from diffground.reproduction.config import Params
from diffground.reproduction.reviews import review_of
from diffground.segmentation.sources import SegmentationSource, ShardSource


def scored_images(params: Params) -> tuple[SegmentationSource, bool]:
    """The real validation images, or the held-out synthetic ones where there are none; and whether it is the latter.

    Raises: UserError as VocDataset, ShardSource and review_of do.
    """
    categories = params.vocabulary.load().categories
    real = VocDataset(paths.REAL, params.data.val_list, num_categories=len(categories), may_be_empty=True)
    if len(real):
        return real, False
    review = review_of(paths.SYNTHETIC_REVIEWS, params.profile)
    return ShardSource(paths.SYNTHETIC, part="held_out", review=review, categories=categories), True
