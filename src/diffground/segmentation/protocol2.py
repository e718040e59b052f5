"""Protocol II (paper section 4.3): the training sets of a segmenter, and its scores on real images."""

from __future__ import annotations

from pathlib import Path

import torch

from diffground.config import SegmenterConfig
from diffground.data.voc import VocDataset
from diffground.evaluation.zs3 import ZeroShotScores
from diffground.runtime.progress import Progress
from diffground.runtime.unfinished import Unfinished
from diffground.training import Execution, LossCurve, OnPoint
from diffground.vocabulary import Vocabulary

from .maskformer import MaskFormerSegmenter, build_maskformer
from .segmenter import Segmenter
from .sources import Joined, SegmentationSource, ShardSource, WithoutLabels
from .training import train_segmenter

_BATCH = 16  # images predicted at once; changes the speed, not the scores


def training_source(
    name: str, *, synthetic: Path, pseudo: Path, real: VocDataset, vocabulary: Vocabulary
) -> SegmentationSource:  # fmt: skip
    """The images of a training set, one of those of params.yaml, segmenter.training_sets.

    'synthetic': this method, no real image. 'synthetic_and_real_seen': with real images beside, in which nobody
    labelled the unseen categories: their pixels are ignored. 'real_seen_only': these alone, what one has without this
    method. 'text2mask': real images with label maps of the baseline, by their image-level labels. 'real_all': the upper
    bound, real images with all labels. Labels of categories that are not used are always ignored. Shards, `synthetic`
    and `pseudo`, are read only where they are part of it.
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
    """Build and train; the result is a function of `source` and `config`.

    unfinished: where the training leaves its state and goes on from; None: nowhere.
    """
    torch.manual_seed(config.seed)
    model = build_maskformer(
        backbone=config.backbone, num_labels=1 + len(categories), matching=config.matching,
        hidden_dim=config.hidden_dim, num_queries=config.num_queries,
        decoder_layers=config.decoder_layers, ffn_dim=config.ffn_dim,
    )  # fmt: skip
    segmenter = MaskFormerSegmenter(model, categories=categories, image_size=config.image_size, device=device)
    curve = train_segmenter(
        segmenter, source, iterations=config.iterations, batch_size=config.batch_size,
        learning_rate=config.learning_rate, backbone_lr_factor=config.backbone_lr_factor,
        weight_decay=config.weight_decay, seed=config.seed, description=description,
        execution=Execution(config.mixed_precision, config.gradient_accumulation_steps, unfinished, on_point),
    )  # fmt: skip
    return segmenter, curve


def score_segmenter(
    segmenter: Segmenter, data: SegmentationSource, *, vocabulary: Vocabulary, description: str
) -> ZeroShotScores:
    """Predict every image of `data` and count."""
    scores = ZeroShotScores(categories=vocabulary.categories, seen=vocabulary.seen, unseen=vocabulary.unseen)
    with Progress(len(data), description=description) as progress:
        for start in range(0, len(data), _BATCH):
            items = [data[i] for i in range(start, min(start + _BATCH, len(data)))]
            predictions = segmenter.predict([image for image, _ in items])
            for (_, label), prediction in zip(items, predictions, strict=True):
                scores.update(label=label, scores=prediction)
            progress.advance(len(items))
    return scores
