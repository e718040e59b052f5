"""The baselines on pipelines in the structure of Stable Diffusion 2.x and XL: shapes, and no sample depends on another.

Tolerance: absolute 2e-3 of maps in 0..1. Sums of another order differ by floating-point error, which normalising to
0..1 enlarges by the inverse of a map's range.
"""

from __future__ import annotations

import numpy as np
import pytest
from diffusers.models.attention_processor import Attention

from diffground.baselines.daam import sample_with_maps
from diffground.baselines.text2mask import Text2Mask
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.vocabulary import photograph_of
from tests.unit.diffusion.architectures import IMAGE_SIZE, build_sd2, build_sdxl

PHRASES = [["dog", "bus"], ["potted plant"], ["cat"], ["bus", "cat"]]
SEEDS = [1, 2, 3, 4]
ATOL = 2e-3


@pytest.fixture(scope="module", params=[build_sd2, build_sdxl], ids=["2.x", "XL"])
def generator(request: pytest.FixtureRequest) -> Generator:
    pipeline = request.param()
    # random queries attend to everything alike, and what such self-attention spreads is flat
    for module in pipeline.unet.modules():
        if isinstance(module, Attention):
            module.to_q.weight.data.mul_(10)
    return Generator(pipeline, image_size=IMAGE_SIZE, generator_id="random")


def assert_from_zero_to_one(maps: np.ndarray) -> None:
    """Each of (Q, H, W)."""
    np.testing.assert_allclose(maps.min(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(maps.max(axis=(1, 2)), 1, atol=1e-6)


def test_daam_of_a_batch_equals_its_samples_one_by_one(generator: Generator) -> None:
    prompts = [photograph_of(*phrases) for phrases in PHRASES]
    settings = Sampling(2, 4.0, 1)
    _, together = sample_with_maps(generator, prompts, SEEDS, PHRASES, settings)
    assert together.shape == (4, 2, IMAGE_SIZE, IMAGE_SIZE) and together.dtype == np.float32
    for i, phrases in enumerate(PHRASES):
        alone = sample_with_maps(generator, [prompts[i]], [SEEDS[i]], [phrases], settings)[1][0]
        assert_from_zero_to_one(alone)
        np.testing.assert_allclose(together[i, : len(phrases)], alone, atol=ATOL)
        assert not together[i, len(phrases) :].any()
    assert not np.allclose(together[0, 0], together[0, 1], atol=0.05), "a map a word"
    assert not np.allclose(together[0, 1], together[3, 0], atol=0.05), "a map a sample"


def test_text2mask_of_a_batch_equals_its_images_one_by_one(generator: Generator) -> None:
    sizes = [(IMAGE_SIZE, IMAGE_SIZE), (100, 150), (64, 48), (IMAGE_SIZE, IMAGE_SIZE)]
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    # self-attention is at 16, 8, 4 and 2 px in 2.x, at 8 and 4 in XL
    method = Text2Mask(generator, noise_frac=0.3, word_sizes=(), num_noises=2, power=2, max_affinity_size=8)
    together = method.maps(images, PHRASES, SEEDS)
    assert [maps.shape for maps in together] == [(len(p), *size) for p, size in zip(PHRASES, sizes, strict=True)]
    for i, maps in enumerate(together):
        assert maps.dtype == np.float32
        assert_from_zero_to_one(maps)
        (alone,) = method.maps([images[i]], [PHRASES[i]], [SEEDS[i]])
        np.testing.assert_allclose(maps, alone, atol=ATOL)
    assert not np.allclose(together[0][0], together[0][1], atol=0.05), "a map a word"
