"""What leaving out synthetic images of low quality does to the segmenter that is trained on the others.

    python benchmarks/quality.py               # after a reproduction of profile mini, about ten minutes

For each threshold of `segmenter.min_quality`, a segmenter per seed is trained with the settings of params.yaml and
scored on the real validation images. A second series leaves out as many images at random. Writes
reports/benchmarks/quality.json and quality.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from diffground.atomic import write_atomically
from diffground.data.voc import VocDataset
from diffground.evaluation.zs3 import score_segmenter
from diffground.report.tables import Table
from diffground.reproduction import paths
from diffground.reproduction.config import Params, load_params
from diffground.runtime.device import setup
from diffground.runtime.workers import Advance, Workers
from diffground.segmentation.protocol2 import fit_segmenter
from diffground.segmentation.sources import SegmentationSource, ShardSource

OUT = Path("reports/benchmarks")
KEYS = ("seen", "unseen", "harmonic")


@dataclass(frozen=True)
class Chosen:
    """Those images of a source that are at `places`."""

    source: SegmentationSource
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self.source[self.places[i]]


@dataclass(frozen=True)
class Case:
    """One training."""

    min_quality: float
    at_random: bool
    """Leave out as many images as `min_quality` does, but any."""
    seed: int


@dataclass(frozen=True)
class Trial:
    """A case -> its number of images and scores, as the work of a worker."""

    params: Params

    def __call__(self, case: Case, _advance: Advance) -> dict[str, Any]:
        vocabulary = self.params.vocabulary.load()
        device = torch.device("cpu")
        source: SegmentationSource = ShardSource(paths.SYNTHETIC, min_quality=case.min_quality)
        num_images = len(source)
        if case.at_random:
            everything = ShardSource(paths.SYNTHETIC)
            order = np.random.default_rng(case.seed).permutation(len(everything))
            source = Chosen(everything, sorted(order[:num_images].tolist()))
        segmenter, _ = fit_segmenter(
            source,
            categories=vocabulary.categories,
            config=replace(self.params.segmenter, seed=case.seed),
            device=device,
            description=f"quality {case.min_quality:g}, seed {case.seed}",
        )
        real = VocDataset(paths.REAL, self.params.data.val_list, num_categories=len(vocabulary.categories))
        table = score_segmenter(segmenter, real, vocabulary=vocabulary, description="score").table()
        return {**vars(case), "num_images": num_images, **{key: getattr(table, key) for key in KEYS}}


def as_table(results: Sequence[dict[str, Any]]) -> Table:
    """A row per threshold and series: mean and standard deviation over the seeds."""
    rows = []
    for key in dict.fromkeys((r["min_quality"], r["at_random"]) for r in results):
        group = [r for r in results if (r["min_quality"], r["at_random"]) == key]
        scores = [[r[name] for r in group] for name in KEYS]
        cells = [f"{fmean(values):.1f} ± {stdev(values):.1f}" for values in scores]
        rows.append(
            (f"{key[0]:g}", "at random" if key[1] else "by quality", group[0]["num_images"], len(group), *cells)
        )
    return Table(header=("min_quality", "left out", "images", "seeds", *KEYS), rows=tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.0, 0.9, 0.93])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    params = load_params()
    setup(params.runtime)
    cases = [
        Case(threshold, at_random, seed)
        for threshold in args.thresholds
        for at_random in ([False, True] if threshold else [False])
        for seed in range(args.seeds)
    ]
    with Workers(num_workers=params.runtime.num_workers, num_threads=params.runtime.num_threads) as workers:
        results = list(workers.map(Trial(params), cases))
    table = as_table(results)
    write_atomically(OUT / "quality.json", json.dumps(results, indent=2) + "\n")
    write_atomically(OUT / "quality.md", table.to_markdown())
    print(table.to_markdown())


if __name__ == "__main__":
    main()
