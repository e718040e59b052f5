"""Quality against training time: logs/quality_curve.csv and .png.

Each snapshot that train_diffusion.py has left draws the same prompts from the same noise, and the detector is asked
whether it finds what was named.
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import torch
from common import HERE, MODELS, pick_device, read_params
from evaluate_quality import generate
from quality import Asked, share

from diffground.detection.detector import Detector
from diffground.detection.load import load_detector
from diffground.detection.oracle import oracle_masks
from diffground.diffusion.generator import Generator
from diffground.prompts import sample_test_prompts
from diffground.runtime.device import pick_dtype
from diffground.vocabulary import load_vocabulary

matplotlib.use("Agg")

TABLE = HERE / "logs" / "quality_curve.csv"
SNAPSHOTS = HERE / "state" / "snapshots"
_PER_CATEGORY, _NUM_PAIRS = 4, 60


def load_snapshot(folder: Path, *, image_size: int, device: torch.device) -> Generator:
    """The pipeline of a snapshot, which has all parts except the autoencoder."""
    with tempfile.TemporaryDirectory() as whole:
        for part in [*folder.iterdir(), MODELS / "diffusion" / "vae"]:
            (Path(whole) / part.name).symlink_to(part.resolve())
        return Generator.load(whole, device=device, dtype=pick_dtype("auto", device), image_size=image_size)


def found_rates(generator: Generator, detector: Detector, params: dict[str, Any]) -> dict[str, float | None]:
    """Shares, 0..1, of prompts whose categories the detector finds all."""
    p = params["evaluation"]
    vocabulary = load_vocabulary("pascal", unseen=())
    records = sample_test_prompts(vocabulary, per_category=_PER_CATEGORY, per_pair=1, seed=p["seed"] + 1)
    ones = [record for record in records if len(record.categories) == 1]
    twos = [record for record in records if len(record.categories) == 2]
    chosen = [*ones, *twos[:: max(1, len(twos) // _NUM_PAIRS)][:_NUM_PAIRS]]
    asked = [Asked(prompt=record.prompt, categories=record.categories, seed=record.seed) for record in chosen]
    instances = detector.detect(generate(generator, asked, p=p))
    held = [
        len(
            oracle_masks(
                found, wish.categories, detector_names=vocabulary.detector_names, score_threshold=p["score_threshold"]
            )
        )
        == len(wish.categories)
        for found, wish in zip(instances, asked, strict=True)
    ]
    return {
        f"{name}_found": share(h for h, wish in zip(held, asked, strict=True) if len(wish.categories) == num)
        for num, name in ((1, "one_object"), (2, "two_objects"))
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    hours = [float(row["elapsed_s"]) / 3600 for row in rows]
    for key, label in (("one_object_found", "one object"), ("two_objects_found", "both of two objects")):
        axes.plot(hours, [100 * float(row[key]) for row in rows], marker="o", label=label)
    axes.set(xlabel="training time, h", ylabel="found by the detector, %", ylim=(0, 100))
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    folders = sorted(SNAPSHOTS.glob("*"))
    if not folders:
        raise SystemExit(
            f"{SNAPSHOTS}: no snapshots (they are not committed); "
            "run: cd pretrain && dvc unfreeze diffusion && dvc repro diffusion"
        )
    params = read_params()
    device = pick_device()
    rows: list[dict[str, Any]] = []
    log = [json.loads(line) for line in (HERE / "logs" / "diffusion.jsonl").read_text().splitlines()]
    detector = load_detector(
        backend="torchvision",
        checkpoint=str(MODELS / "detector"),
        device=device,
        mask_threshold=params["evaluation"]["mask_threshold"],
    )
    for folder in folders:
        step = int(folder.name)
        record = [record for record in log if record["step"] <= step][-1]
        generator = load_snapshot(folder, image_size=params["image_size"], device=device)
        rates = found_rates(generator, detector, params)
        rows.append({"step": step, "elapsed_s": record["elapsed_s"], "v_loss": record["v_loss"], **rates})
        print(rows[-1], flush=True)
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, TABLE.with_suffix(".png"))


if __name__ == "__main__":
    main()
