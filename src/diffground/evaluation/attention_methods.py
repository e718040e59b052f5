"""Baselines of Protocol I that read attention maps and train nothing; their settings are fitted to training samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from diffground.baselines.daam import best_threshold, choose_layers, heat_maps, sample_with_layer_maps
from diffground.baselines.text2mask import Text2Mask, layer_maps, noise_seed
from diffground.data.labelled import LabelledSample
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.evaluation.methods import parts_that_fit
from diffground.runtime.progress import Progress
from diffground.runtime.workers import Advance, Workers
from diffground.vocabulary import Vocabulary


@dataclass(frozen=True)
class AttentionSetting:
    """How maps become masks."""

    layers: tuple[int, ...]
    """Places along L of the maps; their mean is used."""
    power: int = 0
    """How many times self-attention spreads the maps, one of AttentionMaps.powers."""
    exclusive: bool = False
    """Whether a pixel belongs to its likeliest category at most."""
    threshold: float = 0.0
    """Score from which a pixel belongs to a category, 0..1."""


class AttentionMaps(Protocol):
    """Attention to the categories that the samples' prompts name; its objects can be sent to a worker."""

    @property
    def powers(self) -> tuple[int, ...]:
        """Numbers of times that maps are spread by self-attention, P of them."""

    @property
    def exclusive(self) -> tuple[bool, ...]:
        """The values of AttentionSetting.exclusive that may be chosen."""

    def of(self, samples: Sequence[LabelledSample]) -> Tensor:
        """float32 (B, P, Q, L, s, s) for Q categories and L layers."""

    @property
    def published(self) -> AttentionSetting | None:
        """The setting of the published method, without its threshold; known after the first call of `of`."""


@dataclass
class DaamMaps:
    """DAAM: mean over the steps of a sampling. The samples are sampled again, since no stage keeps these maps."""

    generator: Generator
    vocabulary: Vocabulary
    sampling: Sampling
    published: AttentionSetting | None = None
    powers: ClassVar[tuple[int, ...]] = (0,)
    exclusive: ClassVar[tuple[bool, ...]] = (False, True)
    _last: tuple[tuple[str, ...], Tensor] | None = None

    def of(self, samples: Sequence[LabelledSample]) -> Tensor:
        """As AttentionMaps; those of the last batch are kept, for several methods to read."""
        keys = tuple(sample.key for sample in samples)
        if self._last is None or self._last[0] != keys:
            _, maps, layers = sample_with_layer_maps(
                self.generator,
                [s.prompt for s in samples],
                [s.seed for s in samples],
                [self.vocabulary.words_in(s.prompt, s.categories) for s in samples],
                self.sampling,
            )
            self.published = AttentionSetting(tuple(layers))
            self._last = keys, maps[:, None]
        return self._last[1]


@dataclass
class RefinedMaps:
    """One pass over the stored latents at the tapped step, spread by self-attention.

    This is the readout of methods such as OVAM and Dataset Diffusion, without their optimisation of the prompt. It has
    no published setting of its own.
    """

    generator: Generator
    vocabulary: Vocabulary
    max_affinity_size: int
    published: AttentionSetting | None = None
    powers: ClassVar[tuple[int, ...]] = (0, 1, 2, 4)
    exclusive: ClassVar[tuple[bool, ...]] = (False, True)

    def of(self, samples: Sequence[LabelledSample]) -> Tensor:
        """As AttentionMaps."""
        prompts = [s.prompt for s in samples]
        words = [self.vocabulary.words_in(s.prompt, s.categories) for s in samples]
        maps, _ = layer_maps(
            self.generator,
            torch.from_numpy(np.stack([s.latent for s in samples])).float().to(self.generator.device),
            prompts,
            self.generator.token_weights(prompts, words),
            timestep=samples[0].timestep,
            powers=self.powers,
            max_affinity_size=self.max_affinity_size,
        )
        return maps


@dataclass
class Text2MaskMaps:
    """From Text to Mask: one pass over the noised image; its prompt only names the categories."""

    method: Text2Mask
    vocabulary: Vocabulary
    seed: int
    published: AttentionSetting | None = None
    exclusive: ClassVar[tuple[bool, ...]] = (False, True)

    @property
    def powers(self) -> tuple[int, ...]:
        return tuple(sorted({0, 1, 2, 4, self.method.power}))

    def of(self, samples: Sequence[LabelledSample]) -> Tensor:
        """As AttentionMaps."""
        maps, sizes = self.method.layer_maps(
            [s.image() for s in samples],
            [self.vocabulary.words_in(s.prompt, s.categories) for s in samples],
            [noise_seed(self.seed, s.key) for s in samples],
            powers=self.powers,
        )
        used = [i for i, size in enumerate(sizes) if not self.method.word_sizes or size in self.method.word_sizes]
        self.published = AttentionSetting(tuple(used), power=self.method.power, exclusive=True)
        return maps


@dataclass(frozen=True)
class AttentionMethod:
    """Masks of what is attended at least as much as a threshold."""

    maps: AttentionMaps
    settings: Mapping[int, AttentionSetting]
    """By the number of categories that the prompt names."""
    image_size: int

    def __call__(self, samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        found = []
        for part, of_part in parts_that_fit(samples, self.maps.of, setting="daam.batch_size"):
            for sample, maps in zip(part, of_part, strict=True):
                num = len(sample.categories)
                setting = self.settings[num]
                scores = _scores(maps[self.maps.powers.index(setting.power), :num], setting, self.image_size)
                found.append({c: scores[q] >= setting.threshold for q, c in enumerate(sample.categories)})
        return found


def calibrate(
    maps: AttentionMaps,
    samples: Sequence[LabelledSample],
    *,
    image_size: int,
    batch_size: int,
    description: str,
    workers: Workers | None = None,
) -> tuple[AttentionMethod | None, AttentionMethod]:
    """The method as published (None where it is not), and at its best, fitted to the oracle's masks of these samples.

    As published: its setting, one threshold for all. At its best: a setting of its own for prompts of one and of two
    categories. Layers are chosen one after another at the first power, then power, `exclusive` and threshold together.
    workers: each computes the maps of a batch; None uses only this process.
    Raises: UserError where the oracle found nothing in these samples.
    """
    batches = [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]
    found: dict[int, list[_Found]] = {1: [], 2: []}
    published: AttentionSetting | None = None
    with Progress(len(samples), description=description) as progress:
        read = (workers or Workers()).map(_Read(maps), batches, advance=progress.advance)
        for batch, (of_batch, setting) in zip(batches, read, strict=True):
            published = setting
            for sample, of_sample in zip(batch, of_batch, strict=True):
                found[len(sample.categories)].append(_Found(sample, of_sample, maps.powers))

    def fit(setting: AttentionSetting, nums: Sequence[int]) -> tuple[float, AttentionSetting]:
        pairs = [pair for num in nums for one in found[num] for pair in one.pairs(setting, image_size)]
        threshold, iou = best_threshold((scores for scores, _ in pairs), (mask for _, mask in pairs))
        return iou, replace(setting, threshold=threshold)

    plain = None if published is None else fit(published, (1, 2))[1]
    best = {}
    for num, of_num in found.items():
        if masks := [mask for one in of_num for _, mask in one.named()]:
            attention = torch.stack([one.maps[0, q] for one in of_num for q, _ in one.named()])
            layers = tuple(choose_layers(attention, np.stack(masks)))
            settings = [
                AttentionSetting(layers, power, exclusive) for power in maps.powers for exclusive in maps.exclusive
            ]
            best[num] = max((fit(setting, [num]) for setting in settings), key=lambda fitted: fitted[0])[1]
    if not best:
        raise UserError("daam.num_calibration: no mask among these training samples to choose layers by; raise it")
    for num in found:  # such as without training prompts of two categories
        best.setdefault(num, plain or next(iter(best.values())))
    as_published = None if plain is None else AttentionMethod(maps, {1: plain, 2: plain}, image_size)
    return as_published, AttentionMethod(maps, best, image_size)


@dataclass(frozen=True)
class _Read:
    """The maps of each sample, (P, Q, L, s, s), with the published setting, as the work of a worker."""

    maps: AttentionMaps

    def __call__(self, samples: Sequence[LabelledSample], advance: Advance) -> tuple[Tensor, AttentionSetting | None]:
        of_batch = self.maps.of(samples)
        advance(len(samples))
        return of_batch, self.maps.published


@dataclass(frozen=True)
class _Found:
    """A training sample and its maps, (P, Q, L, s, s)."""

    sample: LabelledSample
    maps: Tensor
    powers: tuple[int, ...]

    def named(self) -> Iterator[tuple[int, np.ndarray]]:
        """The place of each category that the oracle found, and its mask."""
        masks = self.sample.masks()
        for q, category in enumerate(self.sample.categories):
            if category in masks:
                yield q, masks[category]

    def pairs(self, setting: AttentionSetting, image_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Scores of each category that the oracle found, and its mask."""
        scores = _scores(self.maps[self.powers.index(setting.power)], setting, image_size)
        for q, mask in self.named():
            yield scores[q], mask


def _scores(maps: Tensor, setting: AttentionSetting, image_size: int) -> np.ndarray:
    """Maps (Q, L, s, s) -> float32 (Q, H, W) in 0..1; -1 where another category is likelier, with `exclusive`."""
    heat = heat_maps(maps[:, list(setting.layers)], image_size).cpu().numpy()
    if not setting.exclusive:
        return heat
    return np.where(heat.argmax(axis=0) == np.arange(len(heat))[:, None, None], heat, -1)
