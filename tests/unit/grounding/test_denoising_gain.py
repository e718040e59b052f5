"""Denoising gain: a definition checked pass by pass, and a model in which the right answer is known."""

from __future__ import annotations

import pytest
import torch

from diffground.diffusion.generator import Generator, Tap
from diffground.grounding.denoising_gain import denoising_gain

WORDS = [["dog", "bus"], ["potted plant"], ["cat", "dog", "bus"]]


@pytest.fixture
def clean(generator: Generator) -> torch.Tensor:
    return generator.noise([5, 6, 7]) * 0.7


def test_gain_is_the_error_without_the_word_minus_with_it(generator: Generator, clean: torch.Tensor) -> None:
    size = clean.shape[-1]
    gain = denoising_gain(generator, clean, WORDS, timesteps=[500], size=size)
    assert gain.shape == (3, 3, 1, size, size)
    noisy = generator.add_noise(clean[:1], generator.noise([0]), timestep=500)
    prompts = {"": None, "a photograph of a bus": None}
    for prompt in prompts:
        prompts[prompt] = (generator.denoise(noisy, [prompt], timestep=500) - clean[:1]).square().mean(dim=1)
    without, told = prompts.values()
    assert not torch.equal(without, told)
    torch.testing.assert_close(gain[0, 1, 0], ((without - told) / without.mean())[0], atol=1e-5, rtol=1e-4)


def test_gains_of_a_batch_equal_those_one_by_one_and_padding_is_zero(generator: Generator, clean: torch.Tensor) -> None:
    together = denoising_gain(generator, clean, WORDS, timesteps=[300, 700], size=8)
    assert together.shape == (3, 3, 2, 8, 8)
    for i, words in enumerate(WORDS):
        alone = denoising_gain(generator, clean[i : i + 1], [words], timesteps=[300, 700], size=8)
        torch.testing.assert_close(alone[0], together[i, : len(words)], atol=1e-5, rtol=1e-3)
        assert not together[i, len(words) :].any()
        assert together[i].any() == (len(words) > 1), "a word without another one to tell it from costs no pass"


def test_denoising_a_latent_noised_by_the_model_s_own_prediction_gives_it_back(
    generator: Generator, clean: torch.Tensor
) -> None:
    """At timestep 0 hardly any noise is added, so what is predicted to be clean is close to the latent itself."""
    noisy = generator.add_noise(clean, generator.noise([1, 2, 3]), timestep=0)
    denoised = generator.denoise(noisy, ["", "", ""], timestep=0)
    assert float((denoised - clean).abs().mean()) < 0.1


def test_clean_latents_of_a_feature_pass_are_those_of_denoise(generator: Generator, clean: torch.Tensor) -> None:
    prompts = ["a photograph of a dog and a bus", "a photograph of a potted plant", "a photograph of a cat"]
    expected = generator.denoise(clean, prompts, timestep=100)
    for branches in ("conditional", "both"):
        features = generator.features(clean, prompts, timestep=100, tap=Tap(branches))
        torch.testing.assert_close(features.clean, expected, atol=1e-5, rtol=1e-4)
