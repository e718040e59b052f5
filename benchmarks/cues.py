"""What each cue that profile mini adds to the paper's module finds without a trained module.

    python benchmarks/cues.py                  # after a reproduction of profile mini, about three minutes

The words' cross-attention is DAAM with layers and thresholds fitted to training samples, as stage evaluate_baselines
scores it. The denoising gain is a map per word, mean over grounding.gain_timesteps; its threshold is fitted to training
samples of two words, too. It is defined for prompts of two words or more. Writes reports/benchmarks/cues.json, cues.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from diffground.atomic import write_atomically
from diffground.baselines.daam import best_threshold
from diffground.data.labelled import LabelledSample, read_labelled_samples
from diffground.diffusion.generator import Generator
from diffground.diffusion.load import load_generator
from diffground.evaluation.protocol1 import run_protocol1
from diffground.grounding.denoising_gain import denoising_gain
from diffground.prompts import GROUPS
from diffground.report.tables import GROUP_TITLES, METHOD_TITLES, Row, Table
from diffground.reproduction import paths
from diffground.reproduction.config import load_params
from diffground.reproduction.metrics import read_metrics
from diffground.runtime.device import setup
from diffground.vocabulary import Vocabulary

OUT = Path("reports/benchmarks")
TIMESTEPS = (499, 599, 699)
NUM_CALIBRATION = 128


@dataclass
class GainMethod:
    """What a word explains by at least `threshold`, of maps that run from 0 to 1."""

    generator: Generator
    vocabulary: Vocabulary
    threshold: float = field(default=0.5)

    def maps(self, samples: Sequence[LabelledSample]) -> np.ndarray:
        """float32 (B, Q, H, W) in 0..1."""
        clean = self.generator.encode(np.stack([sample.image() for sample in samples]))
        words = [self.vocabulary.words_in(sample.prompt, sample.categories) for sample in samples]
        gain = denoising_gain(self.generator, clean, words, timesteps=TIMESTEPS, size=clean.shape[-1]).mean(dim=2)
        size = (self.generator.image_size, self.generator.image_size)
        gain = F.interpolate(gain, size=size, mode="bicubic", align_corners=False)
        low, high = gain.amin(dim=(2, 3), keepdim=True), gain.amax(dim=(2, 3), keepdim=True)
        return ((gain - low) / (high - low).clamp(min=1e-8)).cpu().numpy()

    def __call__(self, samples: Sequence[LabelledSample]) -> list[dict[str, np.ndarray]]:
        return [
            {category: found[q] >= self.threshold for q, category in enumerate(sample.categories)}
            for sample, found in zip(samples, self.maps(samples), strict=True)
        ]

    def fit(self, samples: Sequence[LabelledSample]) -> None:
        pairs = [
            (found[q], sample.masks()[category])
            for sample, found in zip(samples, self.maps(samples), strict=True)
            for q, category in enumerate(sample.categories)
            if category in sample.found
        ]
        self.threshold, _ = best_threshold((heat for heat, _ in pairs), (mask for _, mask in pairs))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    params = load_params()
    device = setup(params.runtime)
    method = GainMethod(load_generator(params.generator, device), params.vocabulary.load())
    training = read_labelled_samples(generated=paths.GENERATED["train"], oracle=paths.ORACLE["train"])
    method.fit(list(islice((s for s in training if len(s.categories) > 1), NUM_CALIBRATION)))
    tests = read_labelled_samples(generated=paths.GENERATED["test"], oracle=paths.ORACLE["test"])
    several = (sample for sample in tests if len(sample.categories) > 1)
    with torch.no_grad():
        result = run_protocol1(several, {"gain": method}, groups=GROUPS, batch_size=params.daam.batch_size)
    gain = result.metrics()["gain"]
    daam = read_metrics("evaluate_grounding")["daam_best"]
    rows: list[Row] = [
        (f"words' cross-attention ({METHOD_TITLES['daam_best']})", *(daam.get(group) for group in GROUPS)),
        ("denoising gain", *(gain.get(group) for group in GROUPS)),
    ]
    table = Table(header=("mIoU without a trained module, %", *GROUP_TITLES.values()), rows=tuple(rows))
    numbers = {"denoising_gain": gain, "threshold": method.threshold, "cross_attention": daam}
    write_atomically(OUT / "cues.json", json.dumps(numbers, indent=2, sort_keys=True) + "\n")
    write_atomically(OUT / "cues.md", table.to_markdown())
    print(table.to_markdown())


if __name__ == "__main__":
    main()
