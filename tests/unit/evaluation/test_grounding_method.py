"""Masks of the grounding module where two categories claim a pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffground.data.labelled import LabelledSample, image_sample
from diffground.evaluation.grounding_method import GroundingMethod
from diffground.vocabulary import load_vocabulary

PROBS = torch.tensor([[[0.9, 0.6, 0.1]], [[0.2, 0.8, 0.3]]])  # dog, cat; 1 x 3 pixels


class GivenProbs:
    def probs(self, *, latents, **_):
        return [PROBS] * len(latents)


@pytest.mark.parametrize(("resolve_overlaps", "dog"), [(False, [[True, True, False]]), (True, [[True, False, False]])])
def test_a_pixel_of_two_categories(resolve_overlaps: bool, dog: list[list[bool]]) -> None:
    method = GroundingMethod(
        grounder=GivenProbs(),
        vocabulary=load_vocabulary("pascal", unseen=["cat"]),
        image_size=8,
        mask_threshold=0.5,
        resolve_overlaps=resolve_overlaps,
    )
    sample = LabelledSample(
        image_sample(
            id="a",
            prompt="a photograph of a dog and a cat",
            categories=("dog", "cat"),
            settings={"timestep": 1},
            image=np.zeros((1, 3, 3), dtype=np.uint8),
            latent=np.zeros((4, 1, 1), dtype=np.float16),
        )
    )
    [masks] = method([sample])
    assert masks["dog"].tolist() == dog
    assert masks["cat"].tolist() == [[False, True, False]]
