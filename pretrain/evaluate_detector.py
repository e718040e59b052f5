"""Score models/mini/detector on the real validation split (held-out artworks); write pretrain/logs/detector_val.json.

Needs ../data/real: run `dvc repro prepare_data` in the repository root before.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from common import HERE, MODELS, pick_device, read_params
from tqdm import tqdm

from diffground.data.voc import VocDataset
from diffground.detection.average_precision import MaskAp50
from diffground.detection.detector import Detector
from diffground.detection.load import load_detector
from diffground.detection.oracle import FoundCounts, oracle_masks
from diffground.vocabulary import Vocabulary, load_vocabulary


@dataclass(frozen=True)
class DetectorScores:
    """`ap50` 0..1, mean over categories, and by category; `found`: share of scenes whose categories were all found."""

    ap50: float
    ap50_per_category: dict[str, float]
    found: FoundCounts


def score_detector(
    detector: Detector, *, vocabulary: Vocabulary, score_threshold: float, batch_size: int
) -> DetectorScores:
    """Mask AP50 over all instances; found-rates at `score_threshold`, as for generated images."""
    data = VocDataset(HERE.parent / "data" / "real", "val")
    ap50, found = MaskAp50(), FoundCounts()
    for start in tqdm(range(0, len(data), batch_size), desc="real val", mininterval=10):
        indices = range(start, min(start + batch_size, len(data)))
        for i, instances in zip(indices, detector.detect(np.stack([data[i][0] for i in indices])), strict=True):
            truth = [(vocabulary.categories[category], mask) for category, mask in data.instances(i)]
            ap50.update(instances, [(vocabulary.detector_names[category], mask) for category, mask in truth])
            categories = sorted({category for category, _ in truth})
            masks = oracle_masks(
                instances, categories, detector_names=vocabulary.detector_names, score_threshold=score_threshold
            )
            found.add(named=categories, found=masks)
    return DetectorScores(ap50=ap50.mean(), ap50_per_category=dict(ap50.per_category()), found=found)


def main() -> None:
    p = read_params()["evaluation"]
    detector = load_detector(
        backend="torchvision",
        checkpoint=str(MODELS / "detector"),
        mask_threshold=p["mask_threshold"],
        device=pick_device(),
    )
    scores = score_detector(
        detector,
        vocabulary=load_vocabulary("pascal", unseen=()),
        score_threshold=p["score_threshold"],
        batch_size=p["batch_size"],
    )
    report = {
        "mask_ap50": round(scores.ap50, 4),
        "mask_ap50_per_category": {name: round(value, 4) for name, value in scores.ap50_per_category.items()},
        "all_found_frac": {str(num): round(scores.found.all_found_frac(num) or 0.0, 4) for num in (1, 2, 3)},
    }
    (HERE / "logs" / "detector_val.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
