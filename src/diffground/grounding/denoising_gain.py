"""Which pixels a word explains: how much better the model denoises them when the prompt contains the word.

The per-pixel form of classification by a diffusion model (Li et al., "Your Diffusion Model is Secretly a Zero-Shot
Classifier", ICCV 2023). It needs no training and works for every word that the generator knows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diffground.diffusion.generator import Generator
from diffground.vocabulary import photograph_of

_NOISE_SEED = 0
"""The noise is the same for every sample and word: what differs between two words is due to the words."""


@torch.no_grad()
def denoising_gain(
    generator: Generator, clean: Tensor, words: Sequence[Sequence[str]], *, timesteps: Sequence[int], size: int
) -> Tensor:
    """Noise a clean latent, denoise it with "a photograph of a <word>" and with the empty prompt, compare the errors.

    Args:
        clean: float (B, C, h, w), clean latents.
        words: Q phrases per sample; fewer are padded.
        timesteps: how far to noise, 0..999; around the middle, shapes still show and words still matter.
        size: side of the maps returned, px.
    Returns: float32 (B, Q, len(timesteps), size, size): squared error without the word minus with it, mean over
        channels, as a share of the image's mean error without it; zero for padding.
    """
    num_words = max(map(len, words))
    rows = [(b, q, word) for b, of_sample in enumerate(words) for q, word in enumerate(of_sample)]
    sample_of = torch.tensor([b for b, _, _ in rows], device=clean.device)
    word_of = torch.tensor([q for _, q, _ in rows], device=clean.device)
    prompts = [""] * len(clean) + [photograph_of(word) for _, _, word in rows]
    gains = clean.new_zeros(len(clean), num_words, len(timesteps), *clean.shape[2:], dtype=torch.float32)
    for k, timestep in enumerate(timesteps):
        noisy = generator.add_noise(clean, generator.noise([_NOISE_SEED] * len(clean)), timestep=timestep)
        predicted = generator.denoise(torch.cat([noisy, noisy[sample_of]]), prompts, timestep=timestep)
        errors = (predicted - torch.cat([clean, clean[sample_of]])).square().mean(dim=1)  # (B + rows, h, w)
        without, given = errors[: len(clean)], errors[len(clean) :]
        scale = without.mean(dim=(1, 2), keepdim=True)
        gains[sample_of, word_of, k] = (without[sample_of] - given) / scale[sample_of]
    if gains.shape[-1] != size:
        resized = F.interpolate(gains.flatten(0, 1), size=(size, size), mode="bilinear", align_corners=False)
        gains = resized.unflatten(0, gains.shape[:2])
    return gains
