"""Latents, prompts and words in, one probability map per word out: the generator's features, then the module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffground.diffusion.generator import Features, Generator, Tap
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.grounding.checkpoint import GroundingSpec, load_grounding
from diffground.grounding.denoising_gain import denoising_gain
from diffground.grounding.module import GroundingModule
from diffground.grounding.queries import stack_queries


def read_features(
    generator: Generator,
    *,
    latents: Tensor,
    prompts: Sequence[str],
    words: Sequence[Sequence[str]],
    timestep: int,
    branches: str,
    with_attention: bool,
    gain_timesteps: Sequence[int],
) -> Features:
    """What the module reads of these samples: one UNet pass; with `gain_timesteps` also one per word and timestep.

    `latents` float (B, C, h, w) at `timestep`; `words` as phrases, any number per sample.
    """
    tap = Tap(branches, words if with_attention else None)
    features = generator.features(latents, prompts, timestep=timestep, tap=tap)
    return with_gain(generator, features, words=words, gain_timesteps=gain_timesteps)


def with_gain(
    generator: Generator, features: Features, *, words: Sequence[Sequence[str]], gain_timesteps: Sequence[int]
) -> Features:
    """The same with each word's denoising gain after its attention maps, where these were read."""
    if features.attention is None or not gain_timesteps:
        return features
    assert features.clean is not None  # a pass keeps them
    size = features.attention.shape[-1]
    gain = denoising_gain(generator, features.clean, words, timesteps=gain_timesteps, size=size)
    return replace(features, attention=torch.cat([features.attention, gain], dim=2))  # (B, Q, L, s, s)


class Grounder:
    """A generator and the grounding module that reads its features; both frozen."""

    def __init__(
        self, *, generator: Generator, module: GroundingModule, branches: str, gain_timesteps: Sequence[int]
    ) -> None:
        self._generator = generator
        self._module = module
        self._branches = branches
        self._gain_timesteps = gain_timesteps
        self._embeddings: dict[str, Tensor] = {}

    @classmethod
    def load(
        cls, folder: Path, *, generator: Generator, device: torch.device, allow_other_generator: bool = False
    ) -> Grounder:
        """Read a model folder, as stage train_grounding or `diffground import-released` writes it.

        allow_other_generator: take a module that was trained on another generator, if the sizes fit.
        Raises: UserError when the folder is not a grounding module, or one for another generator.
        """
        module, spec = load_grounding(folder)
        return cls.of(
            module, spec, folder=folder, generator=generator, device=device, allow_other_generator=allow_other_generator
        )

    @classmethod
    def of(
        cls,
        module: GroundingModule,
        spec: GroundingSpec,
        *,
        folder: Path,
        generator: Generator,
        device: torch.device,
        allow_other_generator: bool = False,
    ) -> Grounder:
        """The result of load_grounding(folder), for `generator`. Raises: UserError as `load` does."""
        channels = generator.feature_channels(spec.branches)
        if channels != spec.feature_channels or generator.text_dim != spec.text_dim:
            raise UserError(
                f"{folder}: reads features {spec.feature_channels} with words of {spec.text_dim} numbers, but the "
                f"generator gives {channels} and {generator.text_dim}; run `dvc repro train_grounding`, or set "
                f"generator.checkpoint and generator.image_size to those that it was made for"
            )
        if generator.generator_id != spec.generator_id and not allow_other_generator:
            raise UserError(
                f"{folder}: was trained on generator '{spec.generator_id}', this one is '{generator.generator_id}'; "
                "take that generator, or allow another one explicitly (allow_other_generator)"
            )
        return cls(
            generator=generator, module=module.to(device), branches=spec.branches, gain_timesteps=spec.gain_timesteps
        )

    @torch.no_grad()
    def probs(
        self,
        *,
        latents: Tensor,
        prompts: Sequence[str],
        words: Sequence[Sequence[str]],
        timestep: int,
        image_size: int,
    ) -> list[Tensor]:
        """Probability that a pixel shows each word.

        Args:
            latents: float (B, C, h, w), as they enter the UNet at `timestep`.
            words: phrases of each sample ("potted plant"), one or more, in any number.
        Returns: for each sample float32 (Q_i, image_size, image_size) on the CPU.
        """
        features = self._generator.features(latents, prompts, timestep=timestep, tap=self._tap(words))
        return self._read(features, words, image_size=image_size)

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling, *, words: Sequence[Sequence[str]]
    ) -> tuple[np.ndarray, list[Tensor]]:
        """Sample one image per prompt, and read the features in the sampling itself.

        Returns: images uint8 (B, H, W, 3); probabilities as from `probs`, which reads the same features of the tapped
            latents in a pass of its own: equal up to floating-point error.
        Raises: UserError for settings out of range.
        """
        samples = self._generator.sample(prompts, seeds, sampling, tap=self._tap(words))
        assert samples.features is not None  # there is a tap
        return samples.images, self._read(samples.features, words, image_size=self._generator.image_size)

    def _tap(self, words: Sequence[Sequence[str]]) -> Tap:
        return Tap(self._branches, words if self._module.attention_branch is not None else None)

    @torch.no_grad()
    def _read(self, features: Features, words: Sequence[Sequence[str]], *, image_size: int) -> list[Tensor]:
        for phrase in sorted({word for of_sample in words for word in of_sample} - set(self._embeddings)):
            self._embeddings[phrase] = self._generator.category_embedding(phrase).float()
        features = with_gain(self._generator, features, words=words, gain_timesteps=self._gain_timesteps)
        text, exists = stack_queries(words, self._embeddings)
        logits = self._module(features.maps, text, features.attention, image_size=image_size, exists=exists)
        probs = logits.float().sigmoid().cpu()
        return [probs[i, : len(of_sample)] for i, of_sample in enumerate(words)]


def likeliest_word(probs: np.ndarray, *, mask_threshold: float) -> np.ndarray:
    """A pixel goes to its likeliest word if that reaches the threshold: float (Q, H, W) -> disjoint bool (Q, H, W)."""
    likeliest = probs.argmax(axis=0)  # (H, W)
    return (np.arange(len(probs))[:, None, None] == likeliest) & (probs >= mask_threshold)
