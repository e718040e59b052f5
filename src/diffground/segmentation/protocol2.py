"""Protocol II (paper section 4.3): the training sets of a segmenter, and its training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from diffground.data.review import Review
from diffground.data.voc import VocDataset
from diffground.runtime.batches import naming_what_to_lower
from diffground.runtime.rank import is_main_process
from diffground.runtime.workers import Advance
from diffground.segmentation.card import segmenter_card
from diffground.segmentation.config import SegmenterConfig
from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer
from diffground.segmentation.official_training import fit_official
from diffground.segmentation.segmenter import Segmenter
from diffground.segmentation.sources import Joined, SegmentationSource, ShardSource, WithoutLabels
from diffground.segmentation.train import train_segmenter
from diffground.training.loop import Execution, LossCurve, OnPoint
from diffground.training.resume import Unfinished
from diffground.vocabulary import Vocabulary


def needs_real_images(training_sets: Iterable[str]) -> bool:
    """Whether one of these training sets has real images with their labels, see training_source."""
    return not set(training_sets) <= {"synthetic", "text2mask"}


def training_source(
    name: str,
    *,
    synthetic: Path,
    pseudo: Path,
    real: VocDataset,
    vocabulary: Vocabulary,
    min_quality: float = 0.0,
    hold_out: bool = False,
    review: Review | None = None,
) -> SegmentationSource:
    """The images of a training set, one of those of params.yaml, segmenter.training_sets.

    'synthetic': this method, no real image.
    'synthetic_and_real_seen': also real images, in which the pixels of unseen categories are ignored because nobody
    labelled them. 'real_seen_only': only these real images, the baseline without this method. 'text2mask': real images
    with label maps of the baseline, by their image-level labels. 'real_all': the upper bound, real images with all
    labels. Labels of categories that are not used are always ignored.
    Shards, `synthetic` and `pseudo`, are read only where they are part of it. Synthetic images below `min_quality` and
    those that `review` rejects are left out, and with `hold_out` those that segmenters are scored on (see ShardSource).
    """
    labels = {category: i + 1 for i, category in enumerate(vocabulary.categories)}
    unused = [labels[c] for c in labels if c not in vocabulary.seen and c not in vocabulary.unseen]
    part: Literal["all", "training"] = "training" if hold_out else "all"
    of_method = partial(
        ShardSource, synthetic, part=part, min_quality=min_quality, review=review, categories=vocabulary.categories
    )
    if name == "synthetic":
        return of_method()
    if name == "text2mask":
        return ShardSource(pseudo)
    if name == "real_all":
        return WithoutLabels(real, hidden=unused)
    real_seen = WithoutLabels(real, hidden=[*unused, *(labels[c] for c in vocabulary.unseen)])
    return real_seen if name == "real_seen_only" else Joined(of_method(), real_seen)


@dataclass(frozen=True)
class SegmenterTraining:
    """The training of one segmenter, also as the work of a worker.

    Called with a training set's name, it saves the model folder and returns the number of images and the curve.
    """

    vocabulary: Vocabulary
    config: SegmenterConfig
    synthetic: Path
    pseudo: Path
    real: VocDataset
    hold_out: bool
    """Whether segmenters are scored on synthetic images, because there are no real validation images."""
    device: torch.device
    models: Path
    """The folder of the model folders."""
    states: Path
    """The folder of unfinished trainings."""
    fingerprint: dict[str, Any]
    """Of all of them, see training_fingerprint."""
    every_s: float
    """Seconds between two saved states."""
    review: Review | None = None
    """Verdicts on the synthetic samples."""
    on_point: Callable[[str, int, float], None] | None = None
    """Takes the training set's name and each point of its curve, while it is trained; not in a worker."""

    def __call__(self, name: str, _advance: Advance) -> tuple[int, LossCurve]:
        source = training_source(
            name,
            synthetic=self.synthetic,
            pseudo=self.pseudo,
            real=self.real,
            vocabulary=self.vocabulary,
            min_quality=self.config.min_quality,
            hold_out=self.hold_out,
            review=self.review,
        )
        with naming_what_to_lower(
            f"train_maskformer {name}", "segmenter.batch_size, or raise segmenter.gradient_accumulation_steps"
        ):
            segmenter, curve = fit_segmenter(
                source,
                categories=self.vocabulary.categories,
                config=self.config,
                device=self.device,
                description=f"train_maskformer {name}",
                unfinished=Unfinished(self.states / name, self.fingerprint, self.every_s),
                on_point=None if self.on_point is None else partial(self.on_point, name),
            )
        if is_main_process():
            card = segmenter_card(
                name,
                config=self.config,
                num_images=len(source),
                unseen=self.vocabulary.unseen,
                final_loss=curve.losses[-1],
            )
            segmenter.save(self.models / name, card=card)
        return len(source), curve


def fit_segmenter(
    source: SegmentationSource,
    *,
    categories: tuple[str, ...],
    config: SegmenterConfig,
    device: torch.device,
    description: str,
    unfinished: Unfinished | None = None,
    on_point: OnPoint | None = None,
) -> tuple[Segmenter, LossCurve]:
    """Build and train; the result depends only on `source` and `config`.

    unfinished: where the training saves its state and resumes from; None: nowhere.
    Raises: UserError as `train_segmenter` or, with backend 'official', as `fit_official`.
    """
    execution = Execution(config.mixed_precision, config.gradient_accumulation_steps, unfinished, on_point)
    if config.backend == "official":
        return fit_official(
            source,
            categories=categories,
            config=config,
            device=device,
            description=description,
            execution=execution,
        )
    torch.manual_seed(config.seed)
    model = build_maskformer(
        backbone=config.backbone,
        num_labels=1 + len(categories),
        matching=config.matching,
        hidden_dim=config.hidden_dim,
        num_queries=config.num_queries,
        decoder_layers=config.decoder_layers,
        ffn_dim=config.ffn_dim,
    )
    segmenter = MaskFormerSegmenter(model, categories=categories, image_size=config.image_size, device=device)
    curve = train_segmenter(
        segmenter,
        source,
        iterations=config.iterations,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        backbone_lr_factor=config.backbone_lr_factor,
        weight_decay=config.weight_decay,
        seed=config.seed,
        description=description,
        execution=execution,
    )
    return segmenter, curve
