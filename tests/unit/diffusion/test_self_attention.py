"""Observed self-attention: the UNet runs on bit for bit, and what is seen is what the layers use."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from diffground.diffusion.generator import Generator
from diffground.diffusion.self_attention import (
    PixelAffinity,
    observe_self_attention,
    refine,
    self_attention_layers,
)
from diffground.errors import UserError
from tests.unit.diffusion.conftest import build_unet


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return build_unet().eval()


def run(unet: UNet2DConditionModel, *, batch_size: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch_size, 4, 16, 16, generator=generator)
    text = torch.randn(batch_size, 7, 16, generator=generator)
    with torch.no_grad():
        return unet(latents, 10, encoder_hidden_states=text).sample


def test_noise_prediction_is_the_same_bit_for_bit(unet: UNet2DConditionModel) -> None:
    plain = run(unet)
    seen: list[int] = []
    with observe_self_attention(unet, lambda layer, probs: seen.append(layer), max_size=16):
        assert torch.equal(run(unet), plain)
    assert seen == list(range(7))  # two down blocks of one layer, the mid block, two up blocks of two, in this order
    run(unet)
    assert len(seen) == 7  # nothing is observed outside the block


def test_probabilities_times_values_are_what_the_layer_gives(unet: UNet2DConditionModel) -> None:
    layers, outputs, inputs, probs = self_attention_layers(unet), [], [], {}
    handles = [layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for layer in layers]
    handles += [layer.register_forward_hook(lambda _, args, output: outputs.append(output)) for layer in layers]
    with observe_self_attention(unet, probs.__setitem__, max_size=16):
        run(unet)
    for handle in handles:
        handle.remove()
    assert len(layers) == len(outputs) == len(probs) == 7
    for i, layer in enumerate(layers):
        num_pixels = inputs[i].shape[1]
        assert probs[i].shape == (2, layer.heads, num_pixels, num_pixels)
        torch.testing.assert_close(probs[i].sum(dim=-1), torch.ones(probs[i].shape[:3]), atol=1e-5, rtol=0)
        values = layer.to_v(inputs[i]).chunk(layer.heads, dim=-1)
        heads = [probs[i][:, head] @ values[head] for head in range(layer.heads)]
        torch.testing.assert_close(layer.to_out[0](torch.cat(heads, dim=-1)), outputs[i], atol=1e-5, rtol=1e-4)


def test_layers_above_the_largest_size_are_left_out(unet: UNet2DConditionModel) -> None:
    sizes: list[int] = []
    for max_size in (8, 7, 3):
        with observe_self_attention(unet, lambda layer, probs: sizes.append(probs.shape[-1]), max_size=max_size):
            run(unet)
        sizes.append(-max_size)
    assert sizes == [64, 16, 64, 64, -8, 16, -7, -3]  # the 16 px layers never, the mid block of 4 px twice


def test_attention_without_words_of_an_attention_block_is_observed_too() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        down_block_types=("AttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "AttnUpBlock2D"),
        attention_head_dim=4,
    ).eval()
    plain, sizes = run(unet), []
    with observe_self_attention(unet, lambda layer, probs: sizes.append(probs.shape[-1]), max_size=16):
        assert torch.equal(run(unet), plain)
    assert sizes == [256, 64, 64, 64, 64, 256, 256]


def test_fused_projections_are_refused() -> None:
    unet = build_unet()
    unet.fuse_qkv_projections()
    with (
        pytest.raises(UserError, match="unfuse_qkv_projections"),
        observe_self_attention(unet, lambda layer, probs: None, max_size=8),
    ):
        pass


def test_affinity_averages_heads_layers_and_passes_of_the_finest_size() -> None:
    affinity = PixelAffinity(batch_size=1)
    assert affinity.finest() is None
    affinity(0, torch.full((1, 2, 1, 1), 7.0))  # a coarser layer
    probs = torch.zeros(2, 2, 4, 4)
    probs[0] = 100.0  # the unconditional half does not count
    probs[1, 0], probs[1, 1] = 0.2, 0.4
    affinity(1, probs)
    affinity(2, torch.full((1, 2, 4, 4), 0.9))
    finest = affinity.finest()
    assert finest is not None and finest.shape == (1, 4, 4)
    torch.testing.assert_close(finest, torch.full((1, 4, 4), 0.6))  # (mean of 0.2 and 0.4, then 0.9) / 2


def test_refining_is_a_matrix_power_times_the_map() -> None:
    generator = torch.Generator().manual_seed(0)
    affinity = torch.rand(2, 9, 9, generator=generator).softmax(dim=-1)
    maps = torch.rand(2, 3, 3, 3, generator=generator)
    refined = refine(maps, affinity, power=3)
    assert refined.shape == (2, 3, 3, 3)
    for b in range(2):
        for q in range(3):
            expected = torch.linalg.matrix_power(affinity[b], 3) @ maps[b, q].flatten()
            torch.testing.assert_close(refined[b, q].flatten(), expected)
    assert torch.equal(refine(maps, affinity, power=0), maps)


def test_refining_follows_what_belongs_together() -> None:
    # Pixels 0 and 1 attend to each other alone, so do 2 and 3: a map on pixel 0 spreads to 1 and no further.
    affinity = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]])[None]
    maps = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    expected = torch.tensor([[[[0.5, 0.5], [0.0, 0.0]]]])
    for power in (1, 2, 5):
        torch.testing.assert_close(refine(maps, affinity, power=power), expected)


def test_reads_the_generators_unet_in_its_own_precision(generator: Generator) -> None:
    affinity = PixelAffinity(batch_size=1)
    noise = generator.noise([0])
    plain = generator.denoise(noise, ["a photograph of a dog"], timestep=100)
    watched = generator.denoise(noise, ["a photograph of a dog"], timestep=100, affinity=affinity, max_affinity_size=8)
    assert torch.equal(plain, watched)
    finest = affinity.finest()
    assert finest is not None and finest.shape == (1, 64, 64)
