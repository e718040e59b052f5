"""Each stage as one function, and its reference: the same networks on the same inputs, or a plain copy of the bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np
import torch

from benchmarks._stage_subject import Subject, repeated_samples
from diffground.data.labelled import LabelledSample
from diffground.data.shards import list_shards, read_shard, write_shard
from diffground.evaluation.attention_methods import DaamMaps, calibrate
from diffground.evaluation.grounding_method import GroundingMethod
from diffground.evaluation.methods import MirroredDetector, foreground_method
from diffground.evaluation.protocol1 import MaskMethod, quality_problem, run_protocol1
from diffground.evaluation.zs3 import score_segmenter
from diffground.grounding.prediction import read_features
from diffground.grounding.queries import stack_queries
from diffground.prompts import GROUPS
from diffground.segmentation.maskformer import normalise, resize_image
from diffground.segmentation.sources import ShardSource
from diffground.segmentation.train import SegmenterTask, segmentation_loss, train_segmenter
from diffground.training.loop import ShuffledBatches
from diffground.vocabulary import photograph_of

CALIBRATION_EVERY = 6
"""One sample in so many is also used to fit DAAM, as in profile mini."""
ZS3_BATCH = 16
"""Images that score_segmenter predicts at once."""
Pass = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A stage, and what it is compared with; both can be called any number of times."""

    name: str
    reference: str
    ours: Pass
    bare: Pass


def detect_case(subject: Subject) -> Case:
    numbers = count()
    shards = [[LabelledSample(sample) for sample in read_shard(path)] for path in list_shards(subject.generated)]
    # the stage's batches end with a shard
    batches = [batch for shard in shards for batch in _batches(shard, subject.params.detector.batch_size)]
    inputs = [_detector_inputs(batch) for batch in batches]
    return Case(
        name="detect",
        reference="the detector's forward",
        ours=lambda: subject.detect(subject.folder / f"detected-{next(numbers)}"),
        bare=lambda: _all(_no_grad(partial(subject.network, list(images))) for images in inputs),
    )


def segmenter_case(subject: Subject, *, num_steps: int) -> Case:
    """The whole training loop, with reading, resizing, views and clipping, against the steps on the same batches."""
    s = subject.params.segmenter
    source = ShardSource(subject.labelled)
    segmenter, twin = subject.segmenter(), subject.segmenter()
    task = SegmenterTask(twin.model, source, image_size=twin.image_size, device=twin.device)
    generator = torch.Generator().manual_seed(s.seed)
    batches = ShuffledBatches(len(source), batch_size=s.batch_size, generator=generator)
    parts = [task.load(task.draw(next(batches), generator), slice(0, s.batch_size)) for _ in range(num_steps)]

    def bare() -> None:
        optimizer = torch.optim.AdamW(
            twin.model.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay, fused=True
        )
        twin.model.train()
        for part in parts:
            segmentation_loss(twin.model, part.images, part.labels).backward()
            optimizer.step()
            optimizer.zero_grad()

    return Case(
        name="segmenter training",
        reference="forward, backward and optimizer step",
        ours=lambda: train_segmenter(
            segmenter,
            source,
            iterations=num_steps,
            batch_size=s.batch_size,
            learning_rate=s.learning_rate,
            weight_decay=s.weight_decay,
            backbone_lr_factor=s.backbone_lr_factor,
            seed=s.seed,
        ),
        bare=bare,
    )


def protocol1_case(subject: Subject) -> Case:
    """The grounding module, DAAM with its calibration, and the references, as the stages of Protocol I run them."""
    params, vocabulary = subject.params, subject.vocabulary
    samples, batch_size = subject.samples(), params.daam.batch_size
    calibration = samples[::CALIBRATION_EVERY]
    d = params.detector

    def ours() -> None:
        daam, daam_best = calibrate(
            DaamMaps(subject.generator, vocabulary, params.generator.sampling),
            calibration,
            image_size=params.generator.image_size,
            batch_size=batch_size,
            description="calibration of DAAM",
        )
        assert daam is not None
        methods: dict[str, MaskMethod] = {
            "grounding": GroundingMethod(
                grounder=subject.grounder(),
                vocabulary=vocabulary,
                image_size=params.generator.image_size,
                mask_threshold=params.grounding.mask_threshold,
            ),
            "foreground_only": foreground_method,
            "daam": daam,
            "daam_best": daam_best,
            "detector_mirrored": MirroredDetector(
                detector=subject.detector,
                detector_names=vocabulary.detector_names,
                score_threshold=d.score_threshold,
                batch_size=d.batch_size,
            ),
        }
        run_protocol1(samples, methods, groups=GROUPS, batch_size=batch_size)

    judged = [sample for sample in samples if quality_problem(sample.masks(), sample.categories) is None]
    passes: list[Pass] = [
        *(one for batch in _batches(calibration, batch_size) for one in _sampling_passes(subject, batch)),
        *(one for batch in _batches(judged, batch_size) for one in _judging_passes(subject, batch)),
    ]
    return Case(
        name="evaluation, Protocol I",
        reference="the forward passes of its networks",
        ours=ours,
        bare=lambda: _all(map(_no_grad, passes)),
    )


def zs3_case(subject: Subject) -> Case:
    source, segmenter = ShardSource(subject.labelled), subject.segmenter()
    segmenter.model.eval()
    images = [resize_image(source[i][0], segmenter.image_size) for i in range(len(source))]
    inputs = [normalise(torch.stack(images[start : start + ZS3_BATCH])) for start in range(0, len(images), ZS3_BATCH)]
    return Case(
        name="evaluation, segmenter",
        reference="the segmenter's forward",
        ours=lambda: score_segmenter(segmenter, source, vocabulary=subject.vocabulary, description="score"),
        bare=lambda: _all(_no_grad(partial(segmenter.model, pixel_values=batch)) for batch in inputs),
    )


def shard_cases(subject: Subject, *, num_bytes: int) -> list[Case]:
    """One shard of `num_bytes`, written to the disk and read; it is in the system's cache when it is read."""
    samples = repeated_samples(subject.generated, num_bytes=num_bytes)
    shard, copy = subject.folder / "shard.tar", subject.folder / "copy.tar"
    write_shard(shard, samples)

    def synced_copy() -> None:
        shutil.copyfile(shard, copy)
        with copy.open("rb+") as file:
            os.fsync(file.fileno())

    return [
        Case(
            name="shard write",
            reference="a file copy, synced",
            ours=lambda: write_shard(subject.folder / "written.tar", samples),
            bare=synced_copy,
        ),
        Case(
            name="shard read",
            reference="a file copy",
            ours=lambda: _all(lambda: None for _ in read_shard(shard)),
            bare=lambda: shutil.copyfile(shard, copy),
        ),
    ]


def _sampling_passes(subject: Subject, batch: Sequence[LabelledSample]) -> Iterator[Pass]:
    """Of one sampling, as DAAM needs it: UNet passes and the decoded images."""
    generator, sampling = subject.generator, subject.params.generator.sampling
    prompts, noise = [sample.prompt for sample in batch], generator.noise([sample.seed for sample in batch])
    guided = generator.predictor(prompts, guidance_scale=sampling.guidance_scale)
    plain = generator.predictor(prompts)
    for timestep in generator.timesteps(sampling):
        predict = guided if sampling.is_guided(timestep) else plain
        yield partial(predict, noise, timestep)
    yield partial(generator.decode, noise)


def _judging_passes(subject: Subject, batch: Sequence[LabelledSample]) -> Iterator[Pass]:
    """Of one batch of all methods: DAAM's sampling, the module's features and the module, the mirrored detector."""
    yield from _sampling_passes(subject, batch)
    yield from _feature_passes(subject, batch)
    for part in _batches(batch, subject.params.detector.batch_size):
        yield partial(subject.network, list(_detector_inputs(part).flip(-1)))


def _feature_passes(subject: Subject, batch: Sequence[LabelledSample]) -> Iterator[Pass]:
    """The UNet passes whose features the module reads, those of the denoising gain among them, and the module."""
    generator, spec = subject.generator, subject.spec
    prompts = [sample.prompt for sample in batch]
    words = [subject.vocabulary.words_in(sample.prompt, sample.categories) for sample in batch]
    latents = torch.from_numpy(np.stack([sample.latent for sample in batch])).float()
    timestep = batch[0].timestep
    # both branches are one pass of twice the batch, as with guidance
    predict = generator.predictor(prompts, guidance_scale=2.0 if spec.branches == "both" else 1.0)
    yield partial(predict, latents, timestep)
    several = [b for b, of_sample in enumerate(words) if len(of_sample) > 1]
    if several:
        among = [b for b in several for _ in words[b]]
        gain = generator.predictor([""] * len(several) + [photograph_of(word) for b in several for word in words[b]])
        repeated = latents[several + among]
        for gain_timestep in spec.gain_timesteps:
            yield partial(gain, repeated, gain_timestep)
    features = read_features(
        generator,
        latents=latents,
        prompts=prompts,
        words=words,
        timestep=timestep,
        branches=spec.branches,
        with_attention=subject.module.attention_branch is not None,
        gain_timesteps=spec.gain_timesteps,
    )
    names = sorted({word for of_sample in words for word in of_sample})
    embeddings = dict(zip(names, generator.category_embeddings(names).float(), strict=True))
    text, exists = stack_queries(words, embeddings)
    yield lambda: subject.module(
        features.maps, text, features.attention, image_size=generator.image_size, exists=exists
    )


def _detector_inputs(batch: Sequence[LabelledSample]) -> torch.Tensor:
    images = torch.from_numpy(np.stack([sample.image() for sample in batch]))
    return images.permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W)


def _batches(samples: Sequence[LabelledSample], size: int) -> Iterator[Sequence[LabelledSample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def _no_grad(one: Pass) -> Pass:
    return torch.no_grad()(one)


def _all(passes: Iterator[Pass]) -> None:
    for one in passes:
        one()
