"""Real images with label maps -> samples for the grounding module: latents by DDIM inversion, masks from the labels.

The paper's training data "real" (supplementary, dataset construction via DDIM inverse). The shards have the format of
those of `generate` and `detect`, so training and Protocol I read them alike.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffground.data.labelled import LabelledSample, image_sample, oracle_sample
from diffground.data.palette import IGNORE
from diffground.data.shard_map import ShardJob, map_shards, shard_jobs
from diffground.data.shards import Sample, read_shard
from diffground.data.voc import VocDataset
from diffground.diffusion.generate import sampler_settings
from diffground.diffusion.generator import Generator
from diffground.diffusion.inversion import check_inversion, invert_latents, resample, round_trip_error
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.grounding.real_prompts import RealImage, plan_real_images, squeeze
from diffground.runtime.batches import in_batches
from diffground.runtime.fingerprint import checkpoint_fingerprint
from diffground.runtime.workers import Workers
from diffground.vocabulary import Vocabulary

_GUIDANCE_SCALE = 1.0
"""None: inversion errs more with guidance, and its fixed-point iterations may diverge."""


@dataclass(frozen=True)
class InversionSummary:
    """What real_shards wrote."""

    num_images: int
    num_skipped: int
    """As in RealImages."""
    num_cut: int
    """As in RealImages."""
    mean_inversion_error: float | None
    """Mean distance of the clean latents after inversion and sampling, over their norm; None without images."""

    def metrics(self) -> dict[str, float | None]:
        return asdict(self)


def real_shards(
    dataset: VocDataset,
    *,
    images_dir: Path,
    oracle_dir: Path,
    num_images: int,
    generator: Generator,
    vocabulary: Vocabulary,
    named: Sequence[str],
    min_area_frac: float,
    sampling: Sampling,
    fixed_point_iterations: int,
    batch_size: int,
    shard_size: int,
    description: str = "invert",
    workers: Workers | None = None,
) -> InversionSummary:
    """Invert the first `num_images` images of `dataset` that show a category of `named`, and write their masks.

    A sample of images_dir has the whole image, squeezed to the generator's square, its label map and latent, the prompt
    record, settings, the image's id and its inversion error. One of oracle_dir has a mask per named category, and the
    ignored pixels where some are 255 (see data.labelled). Existing complete shards are kept.

    Args:
        num_images: if there are fewer, all are used; with 0 both folders end up without shards.
        named: categories that a prompt may name: vocabulary.seen to train on, all used ones to evaluate on. Pixels of
            any other category become 255, which is judged nowhere: nobody labelled them.
        min_area_frac: share of the image, 0..1, from which a category is named.
        sampling: as for `generate`, so that generated and real latents are of one timestep; without guidance.
        fixed_point_iterations: as for invert_latents.
        workers: None: use only this process.
    Raises: UserError for settings out of range, when no image shows a category of `named`, and when inversion diverges.
    """
    if num_images:  # not every generator can be inverted, nor has to be
        check_inversion(
            generator,
            num_steps=sampling.num_steps,
            tapped_step=sampling.tapped_step,
            timesteps=sampling.timesteps,
            fixed_point_iterations=fixed_point_iterations,
        )
    settings = {
        **sampler_settings(generator, replace(sampling, guidance_scale=_GUIDANCE_SCALE)),
        "sampler": "ddim_inversion",
        "fixed_point_iterations": fixed_point_iterations,
    }
    plan = plan_real_images(
        dataset,
        num_images=num_images,
        vocabulary=vocabulary,
        named=named,
        min_area_frac=min_area_frac,
        image_size=generator.image_size,
    )
    jobs = shard_jobs(plan.images, shard_size=shard_size)
    records = json.dumps([image.record.to_json() for image in plan.images], sort_keys=True)
    map_shards(
        jobs,
        out_dir=images_dir,
        fingerprint={
            **settings,
            "shard_size": shard_size,
            "images": plan.digest,
            "named": list(named),
            "prompts": hashlib.sha256(records.encode()).hexdigest(),
        },
        process=_InvertShard(
            dataset=dataset,
            generator=generator,
            settings=settings,
            hidden=_labels_without(vocabulary, named),
            batch_size=batch_size,
        ),
        description=description,
        num_samples=len(plan.images),
        workers=workers,
    )
    shards = [images_dir / f"{job.name}.tar" for job in jobs]
    # one shard of masks for each shard of images, as detect_shards writes them
    map_shards(
        [ShardJob(name=path.stem, payload=path) for path in shards],
        out_dir=oracle_dir,
        fingerprint={"images": checkpoint_fingerprint(images_dir), "categories": list(vocabulary.categories)},
        process=_MaskShard(vocabulary=vocabulary),
        description=f"{description}: masks",
        num_samples=len(plan.images),
        workers=workers,
    )
    errors = [LabelledSample(sample).inversion_error for path in shards for sample in read_shard(path)]
    return InversionSummary(
        num_images=len(plan.images),
        num_skipped=plan.num_skipped,
        num_cut=plan.num_cut,
        mean_inversion_error=sum(errors) / len(errors) if errors else None,
    )


def _labels_without(vocabulary: Vocabulary, named: Sequence[str]) -> tuple[int, ...]:
    return tuple(i + 1 for i, category in enumerate(vocabulary.categories) if category not in named)


@dataclass(frozen=True)
class _InvertShard:
    """The images of one shard -> its samples."""

    dataset: VocDataset
    generator: Generator
    settings: dict[str, Any]
    hidden: tuple[int, ...]
    """Labels that become 255."""
    batch_size: int

    def __call__(self, shard: Sequence[RealImage]) -> Iterator[Sample]:
        batches = in_batches(
            shard,
            self._invert,
            batch_size=self.batch_size,
            setting="inversion.batch_size",
            lower="generator.image_size or runtime.num_workers",
        )
        for _, samples in batches:
            yield from samples

    def _invert(self, batch: Sequence[RealImage]) -> list[Sample]:
        size = self.generator.image_size
        pairs = [squeeze(*self.dataset[real.index], image_size=size) for real in batch]
        prompts = [real.record.prompt for real in batch]
        clean = self.generator.encode(np.stack([image for image, _ in pairs]))  # (B, C, h, w)
        sampling = {key: self.settings[key] for key in ("num_steps", "guidance_scale", "timesteps")}
        tapped_step = self.settings["tapped_step"]
        latents = invert_latents(
            self.generator,
            clean,
            prompts,
            tapped_step=tapped_step,
            fixed_point_iterations=self.settings["fixed_point_iterations"],
            **sampling,
        )
        returned = resample(self.generator, latents, prompts, from_step=tapped_step, **sampling)
        errors = round_trip_error(clean, returned).tolist()
        for real, error in zip(batch, errors, strict=True):
            if not math.isfinite(error):
                raise UserError(
                    f"image '{self.dataset.ids[real.index]}': DDIM inversion diverged; set "
                    f"inversion.fixed_point_iterations ({self.settings['fixed_point_iterations']}) to 0 or "
                    f"generator.dtype ({self.settings['dtype']}) to float32"
                )
        stored = latents.cpu().numpy().astype(np.float16)
        return [
            image_sample(
                **real.record.to_json(),
                settings=self.settings,
                image=image,
                label=np.where(np.isin(label, self.hidden), np.uint8(IGNORE), label),
                latent=latent,
                image_id=self.dataset.ids[real.index],
                inversion_error=round(error, 4),
            )
            for real, (image, label), latent, error in zip(batch, pairs, stored, errors, strict=True)
        ]


@dataclass(frozen=True)
class _MaskShard:
    """A shard of images with label maps -> samples of their masks."""

    vocabulary: Vocabulary

    def __call__(self, path: Path) -> Iterator[Sample]:
        for sample in read_shard(path):
            image = LabelledSample(sample)
            label, categories = image.label(), image.categories
            ignored = label == IGNORE
            yield oracle_sample(
                sample.key,
                categories=categories,
                masks={category: label == self.vocabulary.index(category) + 1 for category in categories},
                ignored=ignored if ignored.any() else None,
            )
