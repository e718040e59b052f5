"""The pictures of the page: generated images by the quality of their masks, segmented images by their IoU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np

from diffground.data.labelled import LabelledSample
from diffground.data.shards import Sample
from diffground.prompts import GROUPS
from diffground.report.embed import embed_image
from diffground.report.examples import Example, Kind, choose, explain, image_scores, read_examples
from diffground.report.gallery import names_in, overlay
from diffground.report.html import Card, Gallery
from diffground.report.tables import GROUP_TITLES
from diffground.segmentation.segmenter import Segmenter
from diffground.segmentation.sources import SegmentationSource

NUM = 3
"""Images of each kind."""
_HARDEST_LAST = sorted(GROUPS, key=lambda group: (group.startswith("two"), "unseen" in group))
_T = TypeVar("_T")
_KINDS: Mapping[Kind, str] = {"best": "Highest", "median": "Median", "worst": "Lowest"}


@dataclass(frozen=True)
class Generated:
    """A generated image with its masks, chosen. image: uint8 (H, W, 3). label: uint8 (H, W)."""

    image: np.ndarray
    label: np.ndarray
    prompt: str
    categories: tuple[str, ...]
    quality: float

    def card(self, caption: str) -> Card:
        """The image and its masks; `caption` goes before the prompt."""
        names = " and ".join(self.categories)
        pictures = (
            embed_image(self.image, f"Generated image of {names}"),
            embed_image(overlay(self.image, self.label), f"The same image with the masks of {names}"),
        )
        return Card(pictures, f"{caption}Prompt: “{self.prompt}”. Quality {self.quality:.2f}.")


def generated_by_quality(
    samples: Callable[[], Iterable[Sample]], *, num: int = NUM, group: str | None = None
) -> dict[Kind, list[Generated]]:
    """The best, median and worst of the samples with images and label maps, by LabelledSample.quality.

    samples: reads them, in the same order each time; it is called twice. group: only those of this group of prompts.
    """
    qualities = [one.quality if group in (None, one.group) else None for one in map(LabelledSample, samples())]
    choice = choose(qualities, num=num)
    wanted = set(chain.from_iterable(choice.values()))
    read = {
        i: Generated(one.image(), one.label(), one.prompt, one.categories, one.quality)
        for i, one in enumerate(map(LabelledSample, samples()))
        if i in wanted
    }
    return {kind: [read[i] for i in positions] for kind, positions in choice.items()}


def hardest_group(samples: Iterable[Sample]) -> str:
    """The group of prompts that names the most objects, unseen ones at best, of those that occur; one or more do."""
    return max({LabelledSample(sample).group for sample in samples}, key=_HARDEST_LAST.index)


def first_cards(
    generated: Mapping[Kind, Sequence[Generated]],
    segmented: Mapping[Kind, Sequence[tuple[int, Example]]],
    categories: Sequence[str],
    *,
    group: str,
    truth: str,
) -> list[Card]:
    """The cards of the first screen, as far as there are such images: a generated image of prompts of `group` and a
    segmented one, both of median score, and the worst segmented one. truth: as in segmented_card.
    """
    cards = [
        one.card(f"Generated, with masks; median quality of prompts that name {GROUP_TITLES[group]}. ")
        for one in typical(generated)[:1]
    ]
    for _, example in typical(segmented)[:1]:
        cards.append(segmented_card(example, categories, truth=truth, caption="Segmented, median of the scores. "))
    for _, example in segmented["worst"][:1]:
        said = f"Failure, lowest score. {_why('worst', example, categories)}"
        cards.append(segmented_card(example, categories, truth=truth, caption=said))
    return cards


def generated_galleries(chosen: Mapping[Kind, Sequence[Generated]]) -> list[Gallery]:
    """One per kind that has images."""
    return [
        Gallery(f"{title} quality", [one.card("") for one in chosen[kind]])
        for kind, title in _KINDS.items()
        if chosen[kind]
    ]


def segmented_by_iou(
    source: SegmentationSource, segmenter: Segmenter, *, num: int = NUM
) -> dict[Kind, list[tuple[int, Example]]]:
    """The best, median and worst images of `source` by the IoU of `segmenter`, with their positions in it."""
    return {
        kind: list(zip(positions, read_examples(source, segmenter, positions), strict=True))
        for kind, positions in choose(image_scores(source, segmenter), num=num).items()
    }


def segmented_card(example: Example, categories: Sequence[str], *, truth: str, caption: str = "") -> Card:
    """Image, `truth` ("true masks") and answer of a segmenter. `categories[i]` is label i + 1."""
    shown, found = (names_in(label, categories) or "nothing" for label in (example.truth, example.answer))
    pictures = (
        embed_image(example.image, f"Image of {shown}"),
        embed_image(overlay(example.image, example.truth), f"The same image with {truth}: {shown}"),
        embed_image(overlay(example.image, example.answer), f"The same image with predicted masks: {found}"),
    )
    return Card(pictures, f"{caption}IoU {100 * example.iou:.1f} %. Shown: {shown}. Predicted: {found}.")


def segmented_galleries(
    chosen: Mapping[Kind, Sequence[tuple[int, Example]]], categories: Sequence[str], *, truth: str
) -> list[Gallery]:
    """One per kind that has images; the worst are explained."""
    return [
        Gallery(
            f"{title} IoU: image, {truth}, predicted masks",
            [
                segmented_card(one, categories, truth=truth, caption=_why(kind, one, categories))
                for _, one in chosen[kind]
            ],
        )
        for kind, title in _KINDS.items()
        if chosen[kind]
    ]


def typical(chosen: Mapping[Kind, Sequence[_T]]) -> Sequence[_T]:
    """Those around the median; of so few images that there are none, the best or else the worst."""
    return chosen["median"] or chosen["best"] or chosen["worst"]


def _why(kind: Kind, example: Example, categories: Sequence[str]) -> str:
    """What is wrong with one of the worst; nothing of others."""
    return f"{explain(example.truth, example.answer, categories)} " if kind == "worst" else ""
