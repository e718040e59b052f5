"""Quality of the mini generator: reports/metrics/mini_quality.json, and by category logs/quality_categories.csv.

Some 1,500 prompts are sampled. Do detector and judge find what was named; is the colour word obeyed, and the place; how
far are the images' features from those of real scenes; are they copies of training scenes? Beside each figure stands
that of real scenes of the same content: training artworks in scenes that are in no training. A second set of such
scenes gives the judge its threshold. What README repeats, the detector's on plain prompts of the 20 categories, goes to
reports/metrics/mini_diffusion.json, with what evaluate_detector.py has measured before.

Pictures: models/mini/samples.png, the first images sampled, not chosen; logs/neighbours.png, the generated images that
are closest to a training scene, each with that scene to its right.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import HERE, MODELS, pick_device, read_book, read_params
from frechet import frechet_distance
from judge import Judge
from neighbours import closest
from pascal import COCO_NAMES, PASCAL_CATEGORIES
from PIL import Image
from quality import Asked, Outcome, category_rows, rates
from quality_prompts import evaluation_prompts, real_scenes
from sheets import draw_sheet
from tqdm import tqdm
from train_judge import load_judge
from training_scenes import training_scene
from transformers import ResNetBackbone

from diffground.data.stickers.sprites import SpriteBook
from diffground.detection.detector import Detector
from diffground.detection.load import load_detector
from diffground.detection.oracle import oracle_masks
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.reproduction.metrics import write_metrics
from diffground.runtime.device import pick_dtype

_METRICS = HERE.parent / "reports" / "metrics"
_LOGS = HERE / "logs"
_REAL_SEEDS = 22, 23  # added to params.seed: two sets of scenes that no training used
_BATCH_SIZE = 64
_COLUMNS, _SAMPLES_PER_CATEGORY, _NUM_SAMPLE_PAIRS, _NUM_NEIGHBOURS_DRAWN = 12, 2, 20, 18


def generate(generator: Generator, asked: Sequence[Asked], *, p: dict[str, Any]) -> np.ndarray:
    """One image per prompt, uint8 (N, S, S, 3). `p`: section evaluation of params.yaml."""
    parts = []
    for start in tqdm(range(0, len(asked), p["batch_size"]), desc="generated", mininterval=10):
        batch = asked[start : start + p["batch_size"]]
        sampling = Sampling(p["num_steps"], p["guidance_scale"], tapped_step=1)
        samples = generator.sample([wish.prompt for wish in batch], [wish.seed for wish in batch], sampling)
        parts.append(samples.images)
    return np.concatenate(parts)


def detected(
    images: np.ndarray,
    asked: Sequence[Asked],
    *,
    detector: Detector,
    concepts: Sequence[str],
    score_threshold: float,
) -> list[frozenset[str]]:
    """The named categories that the detector finds in each of images uint8 (N, S, S, 3), one per prompt."""
    names = {concept: COCO_NAMES.get(concept, concept) for concept in concepts}
    held: list[frozenset[str]] = []
    for start in tqdm(range(0, len(images), _BATCH_SIZE), desc="detected", mininterval=10):
        for i, instances in enumerate(detector.detect(images[start : start + _BATCH_SIZE]), start=start):
            found = oracle_masks(instances, asked[i].categories, detector_names=names, score_threshold=score_threshold)
            held.append(frozenset(found))
    return held


def look_at(
    images: np.ndarray,
    asked: Sequence[Asked],
    *,
    detector: Detector,
    judge: Judge,
    score_threshold: float,
    presence_threshold: float,
) -> list[Outcome]:
    """Results of detector and judge for images uint8 (N, S, S, 3), one per prompt."""
    verdicts = judge.look_at(images, threshold=presence_threshold)
    held = detected(images, asked, detector=detector, concepts=judge.concepts, score_threshold=score_threshold)
    return [
        Outcome(asked=wish, detected=found, judged=verdict.concepts, colour=verdict.colour, place=verdict.place)
        for wish, found, verdict in zip(asked, held, verdicts, strict=True)
    ]


@torch.no_grad()
def backbone_features(backbone: ResNetBackbone, images: np.ndarray) -> np.ndarray:
    """Mean of the last stage's feature map of images uint8 (N, S, S, 3): float32 (N, D)."""
    parts = []
    for start in range(0, len(images), _BATCH_SIZE):
        pixels = torch.from_numpy(images[start : start + _BATCH_SIZE]).permute(0, 3, 1, 2).to(backbone.device) / 255
        parts.append(backbone((pixels - 0.5) / 0.25).feature_maps[-1].mean(dim=(2, 3)).cpu())
    return torch.cat(parts).numpy()


def through_autoencoder(generator: Generator, images: np.ndarray) -> np.ndarray:
    """Reconstructions of images uint8 (N, S, S, 3) by the generator's autoencoder."""
    batches = [images[start : start + _BATCH_SIZE] for start in range(0, len(images), _BATCH_SIZE)]
    return np.concatenate([generator.decode(generator.encode(batch)) for batch in batches])


def check_copies(
    images: np.ndarray,
    fresh: np.ndarray,
    *,
    book: SpriteBook,
    generator: Generator,
    backbone: ResNetBackbone,
    params: dict[str, Any],
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Distances of generated images to the training scenes, and those of fresh scenes and planted copies of training
    scenes do, both passed through the autoencoder, which blurs as it does in generated images.

    `images` and `fresh` uint8 (N, S, S, 3), of the same content. Returns the figures, and for each generated image its
    closest training scene uint8 (N, S, S, 3) and the RMSE to it, float64 (N,).
    """
    p, num_train = params["quality"], params["scenes"]["num_train"]

    def render(index: int) -> np.ndarray:
        return training_scene(book, params, index)[0].image

    keys = np.concatenate(
        [
            backbone_features(
                backbone, np.stack([render(i) for i in range(start, min(start + _BATCH_SIZE, num_train))])
            )
            for start in tqdm(range(0, num_train, _BATCH_SIZE), desc="training scenes", mininterval=10)
        ]
    )
    planted = np.stack([render(int(i)) for i in np.linspace(0, num_train - 1, len(images))])
    sets = {
        "generated": images,
        "fresh": through_autoencoder(generator, fresh),
        "planted": through_autoencoder(generator, planted),
    }
    found = {
        name: closest(part, backbone_features(backbone, part), keys, render=render, shortlist=p["shortlist"])
        for name, part in sets.items()
    }
    medians = {name: float(np.median(rmse)) for name, (_, rmse) in found.items()}
    figures = {
        "num_images": len(images),
        "median_rmse": medians,
        "median_ratio": medians["generated"] / medians["fresh"],
        "copy_rmse": p["copy_rmse"],
        "copied": {name: float((rmse < p["copy_rmse"]).mean()) for name, (_, rmse) in found.items()},
    }
    indices, rmse = found["generated"]
    return figures, np.stack([render(int(i)) for i in indices]), rmse


def write_categories(outcomes: Sequence[Outcome]) -> None:
    rows = category_rows(outcomes, pascal=PASCAL_CATEGORIES)
    with (_LOGS / "quality_categories.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def draw_samples(asked: Sequence[Asked], images: np.ndarray) -> Image.Image:
    """The first images of each of the 20 categories, then of their pairs, evenly over the list."""
    plain = [i for i, wish in enumerate(asked) if wish.plain and set(wish.categories) <= {*PASCAL_CATEGORIES}]
    ones = [
        i
        for category in PASCAL_CATEGORIES
        for i in [i for i in plain if asked[i].categories == (category,)][:_SAMPLES_PER_CATEGORY]
    ]
    twos = [i for i in plain if len(asked[i].categories) == 2]
    chosen = ones + twos[:: max(1, len(twos) // _NUM_SAMPLE_PAIRS)][:_NUM_SAMPLE_PAIRS]
    return draw_sheet(images[chosen], [_words(asked[i]) for i in chosen], columns=_COLUMNS)


def draw_neighbours(
    asked: Sequence[Asked], images: np.ndarray, scenes: np.ndarray, distances: np.ndarray
) -> Image.Image:
    """The generated images with the smallest distances, each with its training scene."""
    suspects = distances.argsort()[:_NUM_NEIGHBOURS_DRAWN]
    pairs = np.stack([images[suspects], scenes[suspects]], axis=1)  # (N, 2, S, S, 3)
    labels = [label for i in suspects for label in (_words(asked[i]), f"training scene\nRMSE {distances[i]:.3f}")]
    return draw_sheet(pairs.reshape(-1, *images.shape[1:]), labels, columns=_COLUMNS // 2)


def _words(asked: Asked) -> str:
    return asked.prompt.removeprefix("a photograph of ").replace(" and ", "\nand ")


def main() -> None:
    params = read_params()
    e, p = params["evaluation"], params["quality"]
    device, size = pick_device(), params["image_size"]
    book = read_book()
    judge = load_judge(book, params["judge"], device)
    detector = load_detector(
        backend="torchvision", checkpoint=str(MODELS / "detector"), mask_threshold=e["mask_threshold"], device=device
    )
    generator = Generator.load(
        str(MODELS / "diffusion"), device=device, dtype=pick_dtype("auto", device), image_size=size
    )
    backbone = ResNetBackbone.from_pretrained(MODELS / "backbone").float().to(device).eval()
    asked = evaluation_prompts(book, params)
    images = generate(generator, asked, p=e)
    (real_asked, real), (_, other_real) = (
        real_scenes(
            book, asked, image_size=size, mirrored_frac=params["scenes"]["mirrored_frac"], seed=params["seed"] + offset
        )
        for offset in _REAL_SEEDS
    )
    presence_threshold = judge.calibrate(other_real, num_concepts=sum(len(wish.categories) for wish in asked))
    outcomes, real_outcomes = (
        look_at(
            part,
            wishes,
            detector=detector,
            judge=judge,
            score_threshold=e["score_threshold"],
            presence_threshold=presence_threshold,
        )
        for part, wishes in ((images, asked), (real, real_asked))
    )
    real_features = backbone_features(backbone, real)
    some = np.linspace(0, len(asked) - 1, p["num_neighbours"]).astype(int)
    copies, scenes, distances = check_copies(
        images[some], real[some], book=book, generator=generator, backbone=backbone, params=params
    )
    seen = rates(outcomes, pascal=PASCAL_CATEGORIES)
    write_metrics(
        "mini_quality",
        {
            "num_prompts": len(asked),
            "judge_threshold": presence_threshold,
            "generated": seen,
            "real": rates(real_outcomes, pascal=PASCAL_CATEGORIES),
            "frechet_distance": frechet_distance(backbone_features(backbone, images), real_features),
            "frechet_distance_real": frechet_distance(backbone_features(backbone, other_real), real_features),
            "neighbours": copies,
        },
        folder=_METRICS,
    )
    real_val = json.loads((_LOGS / "detector_val.json").read_text())
    write_metrics(
        "mini_diffusion",
        {
            "num_prompts": seen["num_prompts"]["pascal_one_object"] + seen["num_prompts"]["pascal_two_objects"],
            "one_object_found": seen["detector"]["pascal_one_object_found"],
            "two_objects_found": seen["detector"]["pascal_two_objects_found"],
            "real_val_found": real_val["all_found_frac"]["1"],
            "real_val_two_objects_found": real_val["all_found_frac"]["2"],
            "detector_mask_ap50": real_val["mask_ap50"],
        },
        folder=_METRICS,
    )
    write_categories(outcomes)
    draw_samples(asked, images).save(MODELS / "samples.png", optimize=True)
    draw_neighbours([asked[i] for i in some], images[some], scenes, distances).save(
        _LOGS / "neighbours.png", optimize=True
    )


if __name__ == "__main__":
    main()
