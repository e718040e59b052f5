"""The part of the quality report that needs neither judge nor training scenes, quick enough to repeat in a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import MODELS
from evaluate_quality import backbone_features, detected, generate
from frechet import frechet_distance
from pascal import PASCAL_CATEGORIES
from quality import Asked, grouped, share
from quality_prompts import evaluation_prompts, real_scenes
from transformers import ResNetBackbone

from diffground.data.stickers.sprites import SpriteBook
from diffground.detection.load import load_detector
from diffground.diffusion.generator import Generator
from diffground.report.tables import Table
from diffground.runtime.device import pick_dtype

LEFT_OUT = (
    "Left out: colours, places and the judge's found-rates (its weights are not committed), and the search for copies "
    "of training scenes (minutes); evaluate_quality.py measures them."
)
_REAL_SEEDS = 22, 23  # as in evaluate_quality.py
_TITLES = {
    "pascal_one_object": "one PASCAL category, found, %",
    "pascal_two_objects": "both of two PASCAL categories, found, %",
    "further_one_object": "one further concept, found, %",
    "further_two_objects": "both of a pair with a further concept, found, %",
    "coloured": "an object in a named colour, found, %",
    "placed": "an object in a named place, found, %",
}


class QualityCheck:
    """Prompts of evaluate_quality.py, real scenes of the same content, and the networks that look at images."""

    def __init__(self, book: SpriteBook, params: dict[str, Any], *, num_images: int, device: torch.device) -> None:
        """`num_images`: of the prompts, evenly over the list; all where there are fewer."""
        self._e, self._size, self._device = params["evaluation"], params["image_size"], device
        everything = evaluation_prompts(book, params)
        chosen = np.linspace(0, len(everything) - 1, min(num_images, len(everything))).astype(int)
        self.asked = [everything[i] for i in chosen]
        self._concepts = [*book.train, *book.further]
        self._detector = load_detector(
            backend="torchvision",
            checkpoint=str(MODELS / "detector"),
            mask_threshold=self._e["mask_threshold"],
            device=device,
        )
        self._backbone = ResNetBackbone.from_pretrained(MODELS / "backbone").float().to(device).eval()
        (self._shown, self._real), (_, self._other_real) = (
            real_scenes(
                book,
                self.asked,
                image_size=self._size,
                mirrored_frac=params["scenes"]["mirrored_frac"],
                seed=params["seed"] + offset,
            )
            for offset in _REAL_SEEDS
        )
        self._features = backbone_features(self._backbone, self._real)

    def of_pipeline(self, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
        """Figures of the pipeline in `folder`, and its images uint8 (N, S, S, 3), one per prompt of `asked`."""
        generator = Generator.load(
            str(folder), device=self._device, dtype=pick_dtype("auto", self._device), image_size=self._size
        )
        images = generate(generator, self.asked, p=self._e)
        distance = frechet_distance(backbone_features(self._backbone, images), self._features)
        return {"found": self._found(images, self.asked), "frechet_distance": distance}, images

    def of_real_scenes(self) -> dict[str, Any]:
        """The same figures of real scenes; the distance is that of a second set of them."""
        distance = frechet_distance(backbone_features(self._backbone, self._other_real), self._features)
        return {"found": self._found(self._real, self._shown), "frechet_distance": distance}

    def num_prompts(self) -> dict[str, int]:
        return {name: len(group) for name, group in self._grouped(self.asked, self.asked).items()}

    def _found(self, images: np.ndarray, asked: Sequence[Asked]) -> dict[str, float | None]:
        """Shares, 0..1, of images in which the detector finds all that was named."""
        held = detected(
            images,
            asked,
            detector=self._detector,
            concepts=self._concepts,
            score_threshold=self._e["score_threshold"],
        )
        complete = [found.issuperset(wish.categories) for found, wish in zip(held, asked, strict=True)]
        return {name: share(group) for name, group in self._grouped(complete, asked).items()}

    @staticmethod
    def _grouped(values: Sequence[Any], asked: Sequence[Asked]) -> dict[str, list[Any]]:
        groups = grouped(values, asked, pascal=PASCAL_CATEGORIES)
        return {name: groups[name] for name in _TITLES}


def as_table(record: Mapping[str, Any]) -> Table:
    """Figures before and after the training, and of real scenes. `record`: as in quality.json."""
    columns = [record["before"], record["after"], record["real"]]

    def percent(share_found: float | None) -> float | None:
        return None if share_found is None else 100 * share_found

    rows: list[tuple[str | float | None, ...]] = [
        (title, record["num_prompts"][name], *(figures and percent(figures["found"][name]) for figures in columns))
        for name, title in _TITLES.items()
    ]
    distances = (figures and f"{figures['frechet_distance']:.2f}" for figures in columns)
    rows.append(("Fréchet distance to real scenes", sum(record["num_prompts"].values()), *distances))
    return Table(header=("", "prompts", "before", "after", "real scenes"), rows=tuple(rows))
