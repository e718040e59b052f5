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
        channels, as a share of the image's mean error without it; zero for padding, and for a sample with one word:
        the gain tells words apart, and alone it changes no mask, at the cost of two passes per timestep.
    """
    gains = clean.new_zeros(len(clean), max(map(len, words)), len(timesteps), size, size, dtype=torch.float32)
    several = [b for b, of_sample in enumerate(words) if len(of_sample) > 1]
    if not several:
        return gains
    rows = [(i, b, q) for i, b in enumerate(several) for q in range(len(words[b]))]
    among, sample_of, word_of = (torch.tensor(column, device=clean.device) for column in zip(*rows, strict=True))
    prompts = [""] * len(several) + [photograph_of(words[b][q]) for _, b, q in rows]
    clean = clean[several]
    for k, timestep in enumerate(timesteps):
        noisy = generator.add_noise(clean, generator.noise([_NOISE_SEED] * len(clean)), timestep=timestep)
        predicted = generator.denoise(torch.cat([noisy, noisy[among]]), prompts, timestep=timestep)
        errors = (predicted - torch.cat([clean, clean[among]])).square().mean(dim=1)  # (samples + rows, h, w)
        without, given = errors[: len(clean)], errors[len(clean) :]
        scale = without.mean(dim=(1, 2), keepdim=True)
        gain = ((without[among] - given) / scale[among])[:, None]
        if gain.shape[-1] != size:
            gain = F.interpolate(gain, size=(size, size), mode="bilinear", align_corners=False)
        gains[sample_of, word_of, k] = gain[:, 0]
    return gains
