"""How often the detector finds what a prompt names in the mini generator's images: reports/metrics/mini_diffusion.json.

The same detector's figures on real validation scenes stand beside it. Also draws models/mini/samples.png, four images a
category and forty pairs, for the model card: the first ones sampled, not chosen.
"""

from __future__ import annotations

import numpy as np
from common import HERE, MODELS, pick_device, read_params
from evaluate_detector import score_detector
from PIL import Image, ImageDraw

from diffground.detection.detector import load_detector
from diffground.detection.oracle import FoundCounts, oracle_masks
from diffground.diffusion.generator import Generator
from diffground.prompts import PromptRecord, sample_test_prompts
from diffground.report.metrics import write_metrics
from diffground.runtime.device import pick_dtype
from diffground.runtime.progress import Progress
from diffground.vocabulary import Vocabulary, load_vocabulary

_PER_CATEGORY, _NUM_PAIRS, _COLUMNS = 4, 40, 12
_LABEL_PX = 24


def draw_grid(records: list[PromptRecord], images: np.ndarray, vocabulary: Vocabulary) -> Image.Image:
    """A sheet of `images` (N, S, S, 3), enlarged twice, each above its words."""
    tile = 2 * images.shape[1]
    rows = -(-len(records) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * tile, rows * (tile + _LABEL_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (record, image) in enumerate(zip(records, images, strict=True)):
        x, y = k % _COLUMNS * tile, k // _COLUMNS * (tile + _LABEL_PX)
        sheet.paste(Image.fromarray(image).resize((tile, tile), Image.Resampling.NEAREST), (x, y))
        draw.text(
            (x + 3, y + tile), "\n".join(vocabulary.phrases[c] for c in record.categories), fill="black", spacing=0
        )
    return sheet


def pick_for_grid(records: list[PromptRecord], vocabulary: Vocabulary) -> list[int]:
    """Indices of the first images of each category, then of pairs spread evenly over the list."""
    ones = [
        i
        for category in vocabulary.categories
        for i in [i for i, r in enumerate(records) if r.categories == (category,)][:_PER_CATEGORY]
    ]
    twos = [i for i, r in enumerate(records) if len(r.categories) == 2]
    return ones + twos[:: max(1, len(twos) // _NUM_PAIRS)][:_NUM_PAIRS]


def main() -> None:
    params = read_params()
    p = params["evaluation"]
    device = pick_device()
    vocabulary = load_vocabulary("pascal", unseen=())
    detector = load_detector(
        backend="torchvision", checkpoint=str(MODELS / "detector"), mask_threshold=p["mask_threshold"], device=device
    )
    generator = Generator.load(
        str(MODELS / "diffusion"), device=device, dtype=pick_dtype("auto", device), image_size=params["image_size"]
    )
    records = sample_test_prompts(vocabulary, per_category=p["per_category"], per_pair=p["per_pair"], seed=p["seed"])
    counts, images = FoundCounts(), []
    with Progress(len(records), description="generated") as progress:
        for start in range(0, len(records), p["batch_size"]):
            batch = records[start : start + p["batch_size"]]
            sampled = generator.sample(
                [record.prompt for record in batch], [record.seed for record in batch],
                num_steps=p["num_steps"], guidance_scale=p["guidance_scale"], tapped_step=1,
            ).images  # fmt: skip
            images.append(sampled)
            for record, instances in zip(batch, detector.detect(sampled), strict=True):
                found = oracle_masks(
                    instances, record.categories, detector_names=vocabulary.detector_names,
                    score_threshold=p["score_threshold"],
                )  # fmt: skip
                counts.add(num_named=len(record.categories), num_found=len(found))
            progress.advance(len(batch))
    real = score_detector(
        detector, vocabulary=vocabulary, score_threshold=p["score_threshold"], batch_size=p["batch_size"]
    )
    write_metrics(
        "mini_diffusion",
        {
            "one_object_found": counts.all_found_frac(1),
            "two_objects_found": counts.all_found_frac(2),
            "real_val_found": real.found.all_found_frac(1),
            "real_val_two_objects_found": real.found.all_found_frac(2),
            "num_prompts": len(records),
            "detector_mask_ap50": real.ap50,
        },
        folder=HERE.parent / "reports" / "metrics",
    )
    chosen = pick_for_grid(records, vocabulary)
    draw_grid([records[i] for i in chosen], np.concatenate(images)[chosen], vocabulary).save(
        MODELS / "samples.png", optimize=True
    )


if __name__ == "__main__":
    main()
