"""Cached features are those that streaming computes, to half precision."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from diffground.diffusion.generator import Features
from diffground.grounding.features import CachedFeatures, StreamedFeatures, gather_features

MAPS = {2: torch.randn(7, 3, 2, 2), 4: torch.randn(7, 5, 4, 4)}
ATTENTION = torch.rand(7, 2, 6, 4, 4)
CPU = torch.device("cpu")


def extract(indices: Sequence[int]) -> Features:
    chosen = list(indices)
    return Features(maps={size: m[chosen] for size, m in MAPS.items()}, attention=ATTENTION[chosen])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_cached_features_equal_streamed_ones(batch_size: int) -> None:
    cached = gather_features(extract, num_samples=7, batch_size=batch_size, device=CPU)
    streamed = gather_features(extract, num_samples=7, batch_size=batch_size, device=CPU, max_cache_bytes=0)
    assert isinstance(cached, CachedFeatures)
    assert isinstance(streamed, StreamedFeatures)
    for indices in ([0], [6, 0, 3], list(range(7))):
        one, other = cached.batch(indices), streamed.batch(indices)
        torch.testing.assert_close(one.maps, other.maps, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(one.attention, other.attention, atol=2e-3, rtol=2e-3)
        assert one.maps[4].dtype == torch.float32


def test_features_are_cached_up_to_the_limit_and_not_beyond() -> None:
    num_bytes = 7 * 2 * (3 * 4 + 5 * 16 + 2 * 6 * 16)
    settings = {"num_samples": 7, "batch_size": 2, "device": CPU}
    assert isinstance(gather_features(extract, **settings, max_cache_bytes=num_bytes), CachedFeatures)
    assert isinstance(gather_features(extract, **settings, max_cache_bytes=num_bytes - 1), StreamedFeatures)


def test_padding_adds_zero_maps_for_words_that_are_not_there() -> None:
    padded = extract([0, 1]).padded(3)
    assert padded.attention is not None
    assert torch.equal(padded.attention[:, :2], ATTENTION[:2])
    assert not padded.attention[:, 2].any()
    assert Features(maps=MAPS, attention=None).padded(3).attention is None
