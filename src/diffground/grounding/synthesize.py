"""Prompts -> images with label maps: training data for any segmenter (paper section 4.3)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diffground.atomic import write_atomically
from diffground.data.labelled import CATEGORIES_FILE, image_sample
from diffground.data.shard_map import map_shards, shard_jobs
from diffground.data.shards import Sample
from diffground.diffusion.generate import sample_in_batches, sampler_settings
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.grounding.prediction import Grounder
from diffground.grounding.quality import sample_quality
from diffground.prompts import PromptRecord, prompts_digest
from diffground.runtime.workers import Workers
from diffground.vocabulary import Vocabulary


def synthesize_shards(
    records: Sequence[PromptRecord],
    *,
    out_dir: Path,
    generator: Generator,
    grounder: Grounder,
    grounder_id: str,
    vocabulary: Vocabulary,
    sampling: Sampling,
    mask_threshold: float,
    batch_size: int,
    shard_size: int,
    redraw_below: float = 0.0,
    max_draws: int = 2,
    workers: Workers | None = None,
) -> int:
    """Sample every record and ground its categories. Returns the number of shards written now.

    A sample has image and label map, the prompt record, sampler settings and module, for each category its largest
    probability and its share of the image, and its quality (see data.labelled, grounding.quality). Existing complete
    shards are kept. CATEGORIES_FILE next to them lists the names of the labels.
    redraw_below: a sample of lower quality, 0..1, is drawn again from the noise of redraw_seed, up to `max_draws`
    draws; the best one is kept, with its own seed. 0: each sample is drawn once.
    workers: None: use only this process.
    Raises: UserError for settings out of range.
    """
    settings = {
        **sampler_settings(generator, sampling),
        "grounding": grounder_id,
        "mask_threshold": mask_threshold,
    }
    redraw = {"redraw_below": redraw_below, "max_draws": max_draws} if redraw_below else {}

    num_written = map_shards(
        shard_jobs(records, shard_size=shard_size),
        out_dir=out_dir,
        fingerprint={**settings, **redraw, "shard_size": shard_size, "prompts": prompts_digest(records)},
        process=_SynthesizeShard(
            generator=generator,
            grounder=grounder,
            vocabulary=vocabulary,
            sampling=sampling,
            settings=settings,
            batch_size=batch_size,
            redraw_below=redraw_below,
            max_draws=max_draws,
        ),
        description="synthesize",
        num_samples=len(records),
        workers=workers,
    )
    names = json.dumps(vocabulary.categories, ensure_ascii=False, indent=0)
    write_atomically(out_dir / CATEGORIES_FILE, f"{names}\n")
    return num_written


def redraw_seed(seed: int, draw: int) -> int:
    """The seed of draw 2, 3, … of the sample whose first draw has `seed`: 0..2**52, as if it were random."""
    return int(np.random.SeedSequence([seed, draw]).generate_state(1, np.uint64)[0] >> np.uint64(12))


@dataclass(frozen=True)
class _Drawn:
    """A sample, ready to write."""

    sample: Sample
    quality: float


@dataclass(frozen=True)
class _SynthesizeShard:
    """Prompt records of one shard -> its samples."""

    generator: Generator
    grounder: Grounder
    vocabulary: Vocabulary
    sampling: Sampling
    settings: dict[str, Any]
    """Those of sampler_settings, and mask_threshold."""
    batch_size: int
    redraw_below: float
    max_draws: int

    def __call__(self, shard: Sequence[PromptRecord]) -> Iterator[Sample]:
        if not self.redraw_below:
            for drawn in self._draw(shard):
                yield drawn.sample
            return
        best = list(self._draw(shard))
        for draw in range(2, self.max_draws + 1):
            low = [i for i, drawn in enumerate(best) if drawn.quality < self.redraw_below]
            again = [replace(shard[i], seed=redraw_seed(shard[i].seed, draw)) for i in low]
            for i, drawn in zip(low, self._draw(again), strict=True):
                best[i] = max(best[i], drawn, key=lambda one: one.quality)
        for drawn in best:
            yield drawn.sample

    def _draw(self, shard: Sequence[PromptRecord]) -> Iterator[_Drawn]:
        return sample_in_batches(shard, self._sample, self._finish, batch_size=self.batch_size)

    def _sample(self, batch: Sequence[PromptRecord]) -> tuple[np.ndarray, list[Tensor]]:
        """Images uint8 (B, H, W, 3), and of each the probabilities of its categories, float32 (Q_i, H, W)."""
        return self.grounder.sample(
            [record.prompt for record in batch],
            [record.seed for record in batch],
            self.sampling,
            words=[self.vocabulary.words_in(record.prompt, record.categories) for record in batch],
        )

    def _finish(self, sampled: tuple[Sequence[PromptRecord], tuple[np.ndarray, list[Tensor]]]) -> list[_Drawn]:
        batch, (images, probs) = sampled
        drawn = []
        for record, image, maps in zip(batch, images, probs, strict=True):
            by_category = dict(zip(record.categories, maps.numpy(), strict=True))
            label = label_map(by_category, vocabulary=self.vocabulary, mask_threshold=self.settings["mask_threshold"])
            quality = sample_quality(by_category, _masks(by_category, label, self.vocabulary))
            sample = image_sample(
                **record.to_json(),
                settings=self.settings,
                image=image,
                label=label,
                mask_summary=_summary(by_category, label, self.vocabulary),
                quality=quality,
            )
            drawn.append(_Drawn(sample, quality))
        return drawn


def label_map(probs: Mapping[str, np.ndarray], *, vocabulary: Vocabulary, mask_threshold: float) -> np.ndarray:
    """The likeliest category of each pixel where its probability reaches `mask_threshold`, else background.

    Args: probs maps one or more categories to float (H, W). Returns: uint8 (H, W), category i as i + 1.
    """
    labels = np.array([vocabulary.index(category) + 1 for category in probs], dtype=np.uint8)
    stacked = np.stack(list(probs.values()))  # (Q, H, W)
    likeliest = labels[stacked.argmax(axis=0)]
    return np.where(stacked.max(axis=0) >= mask_threshold, likeliest, np.uint8(0))


def _masks(probs: Mapping[str, np.ndarray], label: np.ndarray, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Category -> bool (H, W), as the label map has it."""
    return {category: label == vocabulary.index(category) + 1 for category in probs}


def _summary(probs: Mapping[str, np.ndarray], label: np.ndarray, vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        category: {
            "max_prob": round(float(values.max()), 4),
            "area_frac": round(float((label == vocabulary.index(category) + 1).mean()), 4),
        }
        for category, values in probs.items()
    }
