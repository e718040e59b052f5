"""Rows of the galleries in reports/figures; none of the images is chosen by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from diffground.data.labelled import LabelledSample
from diffground.data.shards import Sample
from diffground.prompts import GROUPS
from diffground.report.cards import Generated
from diffground.report.examples import Example
from diffground.report.gallery import Picture, Row, label_picture, overlay
from diffground.report.tables import GROUP_TITLES
from diffground.segmentation.segmenter import Segmenter
from diffground.segmentation.sources import SegmentationSource


def synthetic_rows(samples: Iterable[Sample], *, num_columns: int) -> list[Row]:
    """A row per group of prompts: images of the synthetic set, each followed by its grounded masks.

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


def scored_rows(
    source: SegmentationSource, segmenters: Mapping[str, Segmenter], *, num_columns: int, held_out: bool = False
) -> list[Row]:
    """Rows of images of `source`, of their true masks and of the masks that each segmenter predicts.

    held_out: the images are synthetic ones, in the order of their prompts, and the masks are those of the grounding
        module. Then the images are evenly spread, so that they show different categories; real ones are the first.
    """
    num = min(num_columns, len(source))
    positions = [i * len(source) // num for i in range(num)] if held_out else range(num)
    items = [source[i] for i in positions]
    images = [image for image, _ in items]
    rows = [
        Row(f"{'held-out synthetic' if held_out else 'real'} images, not used in training", list(map(Picture, images))),
        Row(truth_title(held_out=held_out), [Picture(overlay(image, label)) for image, label in items]),
    ]
    for heading, segmenter in segmenters.items():
        answers = [scores.argmax(axis=0).astype(np.uint8) for scores in segmenter.predict(images)]  # (H, W) each
        pairs = zip(images, answers, strict=True)
        rows.append(Row(heading, [label_picture(*pair, segmenter.categories) for pair in pairs]))
    return rows


def truth_title(*, held_out: bool) -> str:
    """What a segmenter's masks are compared with."""
    return "masks of the grounding module" if held_out else "true masks"


def readme_rows(
    generated: Sequence[Generated], segmented: Sequence[tuple[int, Example]], categories: Sequence[str], *, heading: str
) -> list[Row]:
    """Two generated images with their masks, and below `heading` two segmented ones with the predicted masks.

    `categories[i]` is label i + 1.
    """
    made = [(one.image, one.prompt, one.label) for one in generated[:2]]
    found = [(one.image, f"IoU {100 * one.iou:.0f} %", one.answer) for _, one in segmented[:2]]
    return [
        Row(
            title,
            [
                picture
                for image, caption, label in shown
                for picture in (Picture(image, caption), label_picture(image, label, categories))
            ],
        )
        for title, shown in (("Generated from a prompt, with masks", made), (heading, found))
    ]
