"""The tap: which maps it collects, and that it changes nothing."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from diffground.diffusion.generator import Generator
from diffground.diffusion.unet_features import group_by_size, stack_branches, tap_features

# UNet2DConditionModel's defaults are Stable Diffusion 1.x but for the width of the text states.
SD1 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}


@pytest.fixture(scope="module")
def sd1_maps() -> list[torch.Tensor]:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD1).eval()
        with torch.no_grad(), tap_features(unet) as maps:
            unet(torch.zeros(1, 4, 64, 64), torch.tensor(1), encoder_hidden_states=torch.zeros(1, 77, 768))
    return maps


def test_sd1_maps_are_those_of_the_paper(sd1_maps: list[torch.Tensor]) -> None:
    # DESIGN section 5: 8x8: 6 of 1280; 16x16: five of 1280, one of 640; 32x32: one 1280, four 640, one 320;
    # 64x64: one 640, six 320.
    channels = {size: sorted(m.shape[1] for m in sd1_maps if m.shape[-1] == size) for size in (8, 16, 32, 64)}
    assert channels == {
        8: [1280] * 6,
        16: [640] + [1280] * 5,
        32: [320] + [640] * 4 + [1280],
        64: [320] * 6 + [640],
    }
    assert len(sd1_maps) == 12 + 1 + 12  # residuals of the down path, mid block, layers of the up path


def test_maps_come_in_forward_order(sd1_maps: list[torch.Tensor]) -> None:
    sizes = [m.shape[-1] for m in sd1_maps]
    down = [64] * 3 + [32] * 3 + [16] * 3 + [8] * 3
    # each up block's third layer is its upsampler's output, twice the size
    assert sizes == [*down, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64, 64]


def test_tap_leaves_the_noise_prediction_unchanged_bit_for_bit(generator: Generator) -> None:
    unet, text, latents = generator._unet, generator.embed(["a photograph of a dog"]), generator.noise([0])
    with torch.no_grad():
        plain = unet(latents, 10, encoder_hidden_states=text).sample
        with tap_features(unet) as maps:
            tapped = unet(latents, 10, encoder_hidden_states=text).sample
        again = unet(latents, 10, encoder_hidden_states=text).sample
    assert len(maps) == 6 + 1 + 6
    assert torch.equal(plain, tapped)
    assert torch.equal(plain, again)
    assert len(maps) == 13, "the tap is closed after the block"


def test_last_maps_of_up_blocks_are_what_the_next_block_reads(generator: Generator) -> None:
    unet, text, latents = generator._unet, generator.embed(["a photograph of a dog"]), generator.noise([0])
    with torch.no_grad(), tap_features(unet) as maps:
        predicted = unet(latents, 10, encoder_hidden_states=text).sample
        head = unet.conv_out(unet.conv_act(unet.conv_norm_out(maps[-1])))
    assert torch.equal(head, predicted)


def test_tap_is_removed_after_an_error(generator: Generator) -> None:
    unet = generator._unet
    with pytest.raises(KeyboardInterrupt), tap_features(unet) as maps:
        raise KeyboardInterrupt
    with torch.no_grad():
        unet(generator.noise([0]), 10, encoder_hidden_states=generator.embed([""]))
    assert maps == []


def test_maps_group_by_size_coarse_to_fine_in_order() -> None:
    fine, coarse, late = torch.full((1, 1, 4, 4), 1.0), torch.full((1, 2, 2, 2), 2.0), torch.full((1, 1, 4, 4), 3.0)
    grouped = group_by_size([fine, coarse, late])
    assert list(grouped) == [2, 4]
    assert grouped[4][0, :, 0, 0].tolist() == [1.0, 3.0]
    assert grouped[2][0, :, 0, 0].tolist() == [2.0, 2.0]


def test_branches_stack_along_channels_without_mixing_samples() -> None:
    # batch (unconditional of samples 0 and 1, conditional of samples 0 and 1), one channel
    maps = torch.tensor([10.0, 11.0, 20.0, 21.0]).view(4, 1, 1, 1)
    (stacked,) = stack_branches([maps])
    assert stacked.flatten(1).tolist() == [[10.0, 20.0], [11.0, 21.0]]
