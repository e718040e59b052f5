"""Settings of attention baselines, fitted to samples whose best setting is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from diffground.data.labelled import LabelledSample, image_sample, oracle_sample
from diffground.errors import UserError
from diffground.evaluation.attention_methods import AttentionSetting, calibrate

SIDE = 8
LEFT = np.zeros((SIDE, SIDE), dtype=bool)
LEFT[:, :4] = True
NOISE = torch.linspace(0, 1, SIDE * SIDE).view(SIDE, SIDE)


def sample(key: str, *categories: str, masks: dict[str, np.ndarray]) -> LabelledSample:
    image = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    settings = {"id": key, "prompt": " and ".join(categories), "categories": categories}
    return LabelledSample(
        image_sample(**settings, settings={}, image=image), oracle_sample(key, categories=categories, masks=masks)
    )


@dataclass
class GivenMaps:
    """The same maps for every sample, (P, Q, L, s, s); category q's mask is the left half for 0, the right for 1."""

    maps: Tensor
    powers: tuple[int, ...]
    exclusive: tuple[bool, ...] = (False,)
    published: AttentionSetting | None = None

    def of(self, samples: list[LabelledSample]) -> Tensor:
        return self.maps.expand(len(samples), -1, -1, -1, -1, -1)


ONE = [sample(f"one{i}", "dog", masks={"dog": LEFT}) for i in range(3)]
TWO = [sample(f"two{i}", "dog", "cat", masks={"dog": LEFT, "cat": ~LEFT}) for i in range(3)]
FIT = {"image_size": SIDE, "batch_size": 2, "description": "fit"}


def test_layers_power_and_threshold_are_those_that_fit() -> None:
    left = torch.from_numpy(LEFT).float()
    noise = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    unspread = torch.stack([NOISE, left + 3 * noise])[None]  # layer 1 shows the object, with noise
    spread = torch.stack([NOISE, left])[None]
    maps = GivenMaps(torch.stack([unspread, spread]), powers=(0, 2))
    published, best = calibrate(maps, ONE, **FIT)
    assert published is None
    setting = best.settings[1]
    assert (setting.layers, setting.power, best.settings[2]) == ((1,), 2, setting)
    assert np.array_equal(best(ONE[:1])[0]["dog"], LEFT)


def test_a_pixel_goes_to_its_likeliest_category_where_that_fits_better() -> None:
    left = torch.from_numpy(LEFT).float()
    # both words attend more to lower pixels; each attends a little more than the other to its own side
    lower = torch.linspace(0, 1, SIDE)[:, None].expand(SIDE, SIDE)
    dog, cat = lower + 0.1 * left, lower + 0.1 * (1 - left)
    maps = GivenMaps(torch.stack([dog, cat])[None, :, None], powers=(0,), exclusive=(False, True))
    found = calibrate(maps, TWO, **FIT)[1]
    assert found.settings[2].exclusive
    [masks] = found(TWO[:1])
    assert not (masks["dog"] & masks["cat"]).any()
    assert not found(TWO[:1])[0]["dog"][:, 4:].any()


def test_published_layers_get_one_threshold_for_all() -> None:
    left = torch.from_numpy(LEFT).float()
    maps = GivenMaps(
        torch.stack([torch.stack([NOISE, left]), torch.stack([NOISE, 1 - left])])[None],
        powers=(0,),
        published=AttentionSetting(layers=(0,)),
    )
    published, best = calibrate(maps, [*ONE, *TWO], **FIT)
    assert published is not None
    assert published.settings[1] == published.settings[2]
    assert published.settings[1].layers == (0,)
    assert best.settings[2].layers == (1,)
    assert np.array_equal(best(TWO[:1])[0]["cat"], ~LEFT)


def test_without_a_mask_there_is_nothing_to_fit() -> None:
    maps = GivenMaps(NOISE[None, None, None], powers=(0,))
    with pytest.raises(UserError, match=r"daam.num_calibration: no mask"):
        calibrate(maps, [sample("none", "dog", masks={})], **FIT)
