"""Prompt records -> shards of images and tapped latents (DESIGN section 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from diffground.data.labelled import image_sample
from diffground.data.shard_map import map_shards, shard_jobs
from diffground.data.shards import Sample
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.prompts import PromptRecord, prompts_digest
from diffground.runtime.batches import in_batches
from diffground.runtime.overlap import finish_in_background
from diffground.runtime.workers import Workers

Sampled = TypeVar("Sampled")
Finished = TypeVar("Finished")


def sampler_settings(generator: Generator, sampling: Sampling) -> dict[str, Any]:
    """What a sample depends on in addition to prompt and seed; written to meta.json and fingerprints.

    Raises: UserError for settings out of range.
    """
    return {
        "generator": generator.generator_id,
        "image_size": generator.image_size,
        **asdict(sampling),
        "timestep": generator.timestep(sampling),
        "dtype": str(generator.dtype).removeprefix("torch."),
        "libraries": {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }


def generate_shards(
    records: Sequence[PromptRecord],
    *,
    out_dir: Path,
    generator: Generator,
    sampling: Sampling,
    batch_size: int,
    shard_size: int,
    description: str = "generate",
    workers: Workers | None = None,
) -> int:
    """Sample every record into out_dir/000000.tar, 000001.tar …; returns the number of shards written now.

    A sample has image and latent, the prompt record and the sampler settings (see data.labelled). Existing complete
    shards are kept.
    workers: None: use only this process.
    Raises: UserError for settings out of range.
    """
    settings = sampler_settings(generator, sampling)
    return map_shards(
        shard_jobs(records, shard_size=shard_size),
        out_dir=out_dir,
        # the batch size is left out: it changes the speed, and the images by floating-point error only
        fingerprint={**settings, "shard_size": shard_size, "prompts": prompts_digest(records)},
        process=_SampleShard(generator=generator, sampling=sampling, settings=settings, batch_size=batch_size),
        description=description,
        num_samples=len(records),
        workers=workers,
    )


def sample_in_batches(
    records: Sequence[PromptRecord],
    sample: Callable[[Sequence[PromptRecord]], Sampled],
    finish: Callable[[tuple[Sequence[PromptRecord], Sampled]], Sequence[Finished]],
    *,
    batch_size: int,
) -> Iterator[Finished]:
    """Batches that fit into memory; the one before is finished while a batch is sampled. In order.

    Raises: InfrastructureError and UserError as in_batches does.
    """
    batches = in_batches(
        records,
        sample,
        batch_size=batch_size,
        setting="generator.batch_size",
        lower="generator.image_size or runtime.num_workers",
    )
    for finished in finish_in_background(batches, finish):
        yield from finished


@dataclass(frozen=True)
class _SampleShard:
    """Prompt records of one shard -> its samples."""

    generator: Generator
    sampling: Sampling
    settings: dict[str, Any]
    """Those of sampler_settings."""
    batch_size: int

    def __call__(self, shard: Sequence[PromptRecord]) -> Iterator[Sample]:
        return sample_in_batches(shard, self._sample, self._encode, batch_size=self.batch_size)

    def _sample(self, batch: Sequence[PromptRecord]) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (B, H, W, 3), latents float16 (B, C, h, w)."""
        samples = self.generator.sample(
            [record.prompt for record in batch], [record.seed for record in batch], self.sampling
        )
        return samples.images, samples.latents.cpu().numpy().astype(np.float16)

    def _encode(self, sampled: tuple[Sequence[PromptRecord], tuple[np.ndarray, np.ndarray]]) -> list[Sample]:
        batch, (images, latents) = sampled
        return [
            image_sample(**record.to_json(), settings=self.settings, image=image, latent=latent)
            for record, image, latent in zip(batch, images, latents, strict=True)
        ]
