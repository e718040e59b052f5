"""What the samples of an export hold, counted per shard and summed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffground.data.palette import IGNORE
from diffground.exchange.samples import ExportSample


@dataclass
class Counts:
    """Of the written samples; as JSON it is `vars`."""

    images: Counter[str] = field(default_factory=Counter)
    """Split -> images."""
    with_category: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Split -> category -> images in which it has pixels."""
    objects: Counter[str] = field(default_factory=Counter)
    """Category -> connected regions."""
    further: Counter[str] = field(default_factory=Counter)
    """'empty': images without a pixel of any category. 'not_found': times that a prompt names a category that has no
    pixel in its image. 'ignored': images with pixels of label 255."""

    @property
    def num_images(self) -> int:
        return self.images.total()

    def add(self, sample: ExportSample) -> None:
        labels = sample.categories.labels
        names = {labels[value] for value in np.unique(sample.label).tolist() if value in labels}
        self.images[sample.split] += 1
        self.with_category[sample.split].update(names)
        self.objects.update(labels[found.label] for found in sample.objects)
        self.further["empty"] += not names
        self.further["not_found"] += len(set(sample.facts.categories) - names)
        self.further["ignored"] += bool((sample.label == IGNORE).any())

    def update(self, other: Mapping[str, Mapping[str, Any]]) -> None:
        """Add the counts of another one, given as JSON."""
        for name in ("images", "objects", "further"):
            getattr(self, name).update(other[name])
        for split, names in other["with_category"].items():
            self.with_category[split].update(names)
