"""Real images whose categories are known, but not where they are -> shards of images with pseudo label maps.

The use of From Text to Mask as a baseline (Protocol II): what a segmenter learns from image-level labels. Of a real
label map, only the set of its categories is used, and the threshold comes from generated images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffground.baselines.dense_crf import DenseCrf
from diffground.baselines.text2mask import (
    Text2Mask,
    choose_label_threshold,
    image_level_labels,
    label_map,
    noise_seed,
)
from diffground.data.labelled import LabelledSample, image_sample
from diffground.data.palette import IGNORE
from diffground.data.shard_map import map_shards, shard_jobs
from diffground.data.shards import Sample
from diffground.data.voc import VocDataset
from diffground.runtime.batches import in_batches
from diffground.runtime.progress import Progress
from diffground.runtime.workers import Advance, Workers
from diffground.vocabulary import Vocabulary, photograph_of

_EVEN_ODDS = 0.5
_LOWER = "text2mask.max_affinity_size, generator.image_size or runtime.num_workers"


@dataclass(frozen=True)
class WeakImage:
    """An image and its image-level labels."""

    index: int
    """Its place in the dataset."""
    id: str
    labels: tuple[int, ...]
    """Labels that it shows, 1..K, ascending."""


@dataclass(frozen=True)
class WeakImages:
    """What plan_weak_images chose of a dataset."""

    images: tuple[WeakImage, ...]
    digest: str
    """SHA-256 over the pixels and image-level labels of these images."""
    num_without: int
    """Images looked at that show no used category."""
    num_too_many: int
    """Images looked at whose categories do not fit into one prompt."""

    def counts(self) -> dict[str, int]:
        return {
            "num_images": len(self.images),
            "num_images_without": self.num_without,
            "num_images_with_too_many": self.num_too_many,
        }


@dataclass(frozen=True)
class LabelRule:
    """How maps are turned into a label map."""

    threshold: float
    """As in label_map; with a CRF, the score that the background enters it with."""
    uncertain_band: float
    """As in label_map."""
    crf: DenseCrf | None = None

    def __call__(
        self, maps: np.ndarray, labels: Sequence[int], image: np.ndarray, *, device: torch.device
    ) -> np.ndarray:
        """Maps float (Q, H, W) as Text2Mask.maps, image uint8 (H, W, 3) -> label map uint8 (H, W)."""
        threshold = self.threshold
        if self.crf is not None:
            maps, threshold = self._odds(maps, image, self.crf, device), _EVEN_ODDS
        return label_map(maps, labels, threshold=threshold, uncertain_band=self.uncertain_band)

    def _odds(self, maps: np.ndarray, image: np.ndarray, crf: DenseCrf, device: torch.device) -> np.ndarray:
        """Each category's share of its and the background's probability after the CRF, float32 (Q, H, W) in 0..1."""
        background = np.full((1, *maps.shape[1:]), self.threshold, dtype=np.float32)
        marginals = crf.refine(np.concatenate([background, maps]), image, device=device)
        return marginals[1:] / (marginals[:1] + marginals[1:]).clip(min=1e-12)


def plan_weak_images(dataset: VocDataset, *, vocabulary: Vocabulary, tokenizer: Any, num_images: int) -> WeakImages:
    """The first `num_images` images that show a used category, or all if there are fewer.

    Only the set of categories is read from a label map. Categories that are not used are read too: they are named in
    the prompt, so that their pixels are not given to another category. Images whose prompt is too
    long for `tokenizer` are left out.
    """
    used = {vocabulary.index(category) + 1 for category in (*vocabulary.seen, *vocabulary.unseen)}
    phrases = _phrases(vocabulary)
    images, num_without, num_too_many, digest = list[WeakImage](), 0, 0, hashlib.sha256()
    with Progress(min(num_images, len(dataset)), description="read image-level labels") as progress:
        for i, id_ in enumerate(dataset.ids):
            if len(images) == num_images:
                break
            image, label = dataset[i]
            labels, names = image_level_labels(label, phrases)
            if used.isdisjoint(labels):
                num_without += 1
            elif len(tokenizer(photograph_of(*names)).input_ids) > tokenizer.model_max_length:
                num_too_many += 1
            else:
                images.append(WeakImage(index=i, id=id_, labels=labels))
                digest.update(json.dumps([id_, labels, image.shape]).encode() + image.tobytes())
                progress.advance()
    return WeakImages(
        images=tuple(images), digest=digest.hexdigest(), num_without=num_without, num_too_many=num_too_many
    )


def calibrate_threshold(
    method: Text2Mask,
    samples: Iterable[LabelledSample],
    *,
    vocabulary: Vocabulary,
    num_calibration: int,
    seed: int,
    batch_size: int,
    workers: Workers | None = None,
) -> float:
    """The threshold that fits the detector's masks of generated training images best, as with DAAM.

    Their prompts name only seen categories, and no label of a real image is used. The first `num_calibration` samples
    in which the detector found every named category count; pixels in several masks do not. workers: None: use only
    this process. Raises: UserError where there is no mask to go by.
    """
    complete = (sample for sample in samples if set(sample.categories) <= set(sample.found))
    chosen = list(islice(complete, num_calibration))
    batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    examples = []
    with Progress(len(chosen), description="text2mask threshold") as progress:
        work = _CalibrationMaps(method=method, phrases=dict(vocabulary.phrases), seed=seed)
        maps = (workers or Workers()).map(work, batches, advance=progress.advance)
        for batch, of_batch in zip(batches, maps, strict=True):
            for sample, of_sample in zip(batch, of_batch, strict=True):
                labels = [vocabulary.index(category) + 1 for category in sample.categories]
                examples.append((of_sample, labels, _oracle_label(sample, labels)))
    return choose_label_threshold(examples)


def pseudo_label_shards(
    dataset: VocDataset,
    images: WeakImages,
    *,
    out_dir: Path,
    method: Text2Mask,
    rule: LabelRule,
    vocabulary: Vocabulary,
    seed: int,
    batch_size: int,
    shard_size: int,
    workers: Workers | None = None,
) -> int:
    """Label `images` of `dataset`. Returns the number of shards written now; without images there are none.

    A sample has the image as in the dataset, its label map (255: doubtful or of a category that is not used), image id,
    prompt, categories and settings (see data.labelled). Existing complete shards are kept.
    workers: None: use only this process.
    """
    settings = {
        "generator": method.generator.generator_id,
        "dtype": str(method.generator.dtype).removeprefix("torch."),
        "image_size": method.generator.image_size,
        "noise_frac": method.noise_frac,
        "word_sizes": list(method.word_sizes),
        "num_noises": method.num_noises,
        "power": method.power,
        "max_affinity_size": method.max_affinity_size,
        "seed": seed,
        **asdict(rule),
    }
    names = {value: vocabulary.categories[value - 1] for value in _phrases(vocabulary)}
    used = {*vocabulary.seen, *vocabulary.unseen}
    return map_shards(
        shard_jobs(images.images, shard_size=shard_size),
        out_dir=out_dir,
        fingerprint={
            **settings,
            "shard_size": shard_size,
            "images": images.digest,
            "phrases": dict(vocabulary.phrases),
            "used": sorted(used),
        },
        process=_LabelShard(
            dataset=dataset,
            method=method,
            rule=rule,
            names=names,
            phrases=_phrases(vocabulary),
            hidden=tuple(value for value, name in names.items() if name not in used),
            settings=settings,
            batch_size=batch_size,
        ),
        description="text2mask",
        num_samples=len(images.images),
        workers=workers,
    )


@dataclass(frozen=True)
class _CalibrationMaps:
    """The maps of a batch of generated samples, as the work of a worker."""

    method: Text2Mask
    phrases: dict[str, str]
    seed: int

    def __call__(self, samples: Sequence[LabelledSample], advance: Advance) -> list[np.ndarray]:
        batches = in_batches(samples, self._maps, batch_size=len(samples), setting="text2mask.batch_size", lower=_LOWER)
        maps = [of_sample for _, of_batch in batches for of_sample in of_batch]
        advance(len(samples))
        return maps

    def _maps(self, samples: Sequence[LabelledSample]) -> list[np.ndarray]:
        return self.method.maps(
            [sample.image() for sample in samples],
            [[self.phrases[category] for category in sample.categories] for sample in samples],
            [noise_seed(self.seed, sample.key) for sample in samples],
        )


@dataclass(frozen=True)
class _LabelShard:
    """The images of one shard -> its samples."""

    dataset: VocDataset
    method: Text2Mask
    rule: LabelRule
    names: dict[int, str]
    phrases: dict[int, str]
    hidden: Collection[int]
    """Labels that become 255."""
    settings: dict[str, Any]
    batch_size: int

    def __call__(self, shard: Sequence[WeakImage]) -> Iterator[Sample]:
        batches = in_batches(
            shard, self._label, batch_size=self.batch_size, setting="text2mask.batch_size", lower=_LOWER
        )
        for _, samples in batches:
            yield from samples

    def _label(self, batch: Sequence[WeakImage]) -> list[Sample]:
        images = [self.dataset[weak.index][0] for weak in batch]
        phrases = [[self.phrases[value] for value in weak.labels] for weak in batch]
        seeds = [noise_seed(self.settings["seed"], weak.id) for weak in batch]
        maps = self.method.maps(images, phrases, seeds)
        samples = []
        for weak, image, words, of_image in zip(batch, images, phrases, maps, strict=True):
            label = self.rule(of_image, weak.labels, image, device=self.method.generator.device)
            sample = image_sample(
                id=f"real-{weak.id}",
                prompt=photograph_of(*words),
                categories=[self.names[value] for value in weak.labels],
                settings=self.settings,
                image=image,
                label=np.where(np.isin(label, list(self.hidden)), np.uint8(IGNORE), label),
                image_id=weak.id,
            )
            samples.append(sample)
        return samples


def _phrases(vocabulary: Vocabulary) -> dict[int, str]:
    return {i + 1: vocabulary.phrases[category] for i, category in enumerate(vocabulary.categories)}


def _oracle_label(sample: LabelledSample, labels: Sequence[int]) -> np.ndarray:
    """The masks of a sample as a label map, 255 where they overlap."""
    masks = np.stack([sample.masks()[category] for category in sample.categories])  # (Q, H, W)
    label = np.where(masks.any(axis=0), np.asarray(labels, dtype=np.uint8)[masks.argmax(axis=0)], np.uint8(0))
    label[masks.sum(axis=0) > 1] = IGNORE
    return label
