"""Rows of the galleries: grounded synthetic images, and real images with predictions. None is chosen by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from diffground.data.labelled import LabelledSample
from diffground.data.shards import Sample
from diffground.prompts import GROUPS
from diffground.report.gallery import Picture, Row, label_picture, overlay
from diffground.report.tables import GROUP_TITLES
from diffground.segmentation.segmenter import Segmenter
from diffground.segmentation.sources import SegmentationSource


def synthetic_rows(samples: Iterable[Sample], *, num_columns: int) -> list[Row]:
    """One row per group of prompts: images of the synthetic set, each followed by its grounded masks.

    Of each group the first image of every set of categories, in the order of the shards, until `num_columns` are full.
    """
    pictures: dict[str, list[Picture]] = {group: [] for group in GROUPS}
    shown: set[frozenset[str]] = set()
    for sample in map(LabelledSample, samples):
        group, categories = sample.group, sample.categories
        if len(pictures[group]) >= num_columns or frozenset(categories) in shown:
            continue
        shown.add(frozenset(categories))
        image = sample.image()
        pictures[group] += [Picture(image, " + ".join(categories)), Picture(overlay(image, sample.label()))]
        if all(len(row) >= num_columns for row in pictures.values()):
            break
    return [Row(f"{GROUP_TITLES[group]}: image, masks", row) for group, row in pictures.items() if row]


def real_rows(source: SegmentationSource, segmenters: Mapping[str, Segmenter], *, num_columns: int) -> list[Row]:
    """The first real images, their true masks, and one row of predictions per segmenter."""
    items = [source[i] for i in range(min(num_columns, len(source)))]
    images = [image for image, _ in items]
    rows = [
        Row("real images, not used in training", [Picture(image) for image in images]),
        Row("true masks", [Picture(overlay(image, label)) for image, label in items]),
    ]
    for heading, segmenter in segmenters.items():
        answers = [scores.argmax(axis=0).astype(np.uint8) for scores in segmenter.predict(images)]  # (H, W) each
        pairs = zip(images, answers, strict=True)
        rows.append(Row(heading, [label_picture(*pair, segmenter.categories) for pair in pairs]))
    return rows
