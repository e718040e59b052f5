"""Protocol II (paper section 4.3): the training sets of a segmenter, and its training."""

from __future__ import annotations

from pathlib import Path

import torch

from diffground.data.voc import VocDataset
from diffground.segmentation.config import SegmenterConfig
from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer
from diffground.segmentation.sources import Joined, SegmentationSource, ShardSource, WithoutLabels
from diffground.segmentation.train import train_segmenter
from diffground.training.loop import Execution, LossCurve, OnPoint
from diffground.training.resume import Unfinished
from diffground.vocabulary import Vocabulary


def training_source(
    name: str, *, synthetic: Path, pseudo: Path, real: VocDataset, vocabulary: Vocabulary
) -> SegmentationSource:
    """The images of a training set, one of those of params.yaml, segmenter.training_sets.

    'synthetic': this method, no real image. 'synthetic_and_real_seen': also real images, in which the pixels
    of unseen categories are ignored because nobody labelled them. 'real_seen_only': only these real images, the
    baseline without this method. 'text2mask': real images with label maps of the baseline, by their image-level labels.
    'real_all': the upper bound, real images with all labels. Labels of categories that are not used are always ignored.
    Shards, `synthetic` and `pseudo`, are read only where they are part of it.
    """
    labels = {category: i + 1 for i, category in enumerate(vocabulary.categories)}
    unused = [labels[c] for c in labels if c not in vocabulary.seen and c not in vocabulary.unseen]
    if name == "synthetic":
        return ShardSource(synthetic)
    if name == "text2mask":
        return ShardSource(pseudo)
    if name == "real_all":
        return WithoutLabels(real, hidden=unused)
    real_seen = WithoutLabels(real, hidden=[*unused, *(labels[c] for c in vocabulary.unseen)])
    return real_seen if name == "real_seen_only" else Joined(ShardSource(synthetic), real_seen)


def fit_segmenter(
    source: SegmentationSource,
    *,
    categories: tuple[str, ...],
    config: SegmenterConfig,
    device: torch.device,
    description: str,
    unfinished: Unfinished | None = None,
    on_point: OnPoint | None = None,
) -> tuple[MaskFormerSegmenter, LossCurve]:
    """Build and train; the result depends only on `source` and `config`.

    unfinished: where the training saves its state and resumes from; None: nowhere.
    """
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
        execution=Execution(config.mixed_precision, config.gradient_accumulation_steps, unfinished, on_point),
    )
    return segmenter, curve
