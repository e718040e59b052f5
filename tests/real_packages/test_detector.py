"""detector.backend 'detectron2': a small Mask R-CNN, trained a little, finds what the mini generator drew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import diffground
from diffground.data.labelled import LabelledSample, read_labelled_samples
from diffground.detection.load import load_detector
from diffground.detection.oracle import oracle_masks
from diffground.errors import UserError
from diffground.prompts import PromptRecord, write_prompts
from diffground.reproduction.composition import compose_params
from diffground.vocabulary import load_vocabulary
from tests.real_packages import small_mask_rcnn
from tests.real_packages.networks import CPU, WHY

pytest.importorskip("detectron2", reason=WHY)

ROOT = Path(__file__).parents[2]
DETECTOR_NAMES = load_vocabulary("pascal").detector_names
NAMES = tuple(name or category for category, name in DETECTOR_NAMES.items())
NUM_IMAGES = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = small_mask_rcnn.train(NAMES, iterations=150)
    torch.set_num_threads(threads)
    return small_mask_rcnn.save(model, tmp_path_factory.mktemp("detector") / "small", names=NAMES)


@pytest.fixture(scope="module")
def clone(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Profile mini with this detector, and images of the mini generator of what it was trained on."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "stages", folder / "stages")
    (folder / "models").mkdir()
    (folder / "models/mini").symlink_to(ROOT / "models/mini")
    settings = ["tracking.enabled=false", "detector.backend=detectron2", f"detector.checkpoint={checkpoint}"]
    settings += ["runtime.num_threads=1", "runtime.num_workers=2", "generator.shard_size=6"]
    (folder / "params.yaml").write_text(compose_params("mini", conf=ROOT / "conf", overrides=settings))
    for name in ("train", "test"):
        records = [
            PromptRecord(
                id=f"{name}-{i:06d}",
                prompt=f"a photograph of a {category}",
                categories=(category,),
                group="one_seen" if category == "dog" else "one_unseen",
                seed=i,
                source="template",
            )
            for i, category in enumerate(small_mask_rcnn.CATEGORIES * (NUM_IMAGES // 3))
        ]
        write_prompts(folder / f"data/prompts/{name}.jsonl", records)
    run(folder, "generate")
    return folder


def run(folder: Path, stage: str, *, code: int = 0) -> str:
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    command = [sys.executable, f"stages/{stage}.py"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def read(folder: Path) -> list[LabelledSample]:
    samples = list(read_labelled_samples(generated=folder / "data/generated/test", oracle=folder / "data/oracle/test"))
    assert len(samples) == NUM_IMAGES
    return samples


def test_the_stage_finds_what_torchvision_s_detector_finds(clone: Path) -> None:
    run(clone, "detect")
    samples = read(clone)
    mini = load_detector(
        backend="torchvision", checkpoint=str(ROOT / "models/mini/detector"), mask_threshold=0.5, device=CPU
    )
    overlaps = []
    for sample, instances in zip(samples, mini.detect(np.stack([s.image() for s in samples])), strict=True):
        (category,) = sample.categories
        expected = oracle_masks(instances, [category], detector_names=DETECTOR_NAMES, score_threshold=0.5)
        if category in expected:
            mask = expected[category].mask
            found = sample.masks().get(category, np.zeros_like(mask))
            overlaps.append((found & mask).sum() / (found | mask).sum())
    assert len(overlaps) >= 9, "the mini detector finds nearly all"
    assert np.mean(overlaps) > 0.5, overlaps


def test_its_masks_are_those_of_this_process(clone: Path, checkpoint: Path) -> None:
    run(clone, "detect")
    detector = load_detector(backend="detectron2", checkpoint=str(checkpoint), mask_threshold=0.5, device=CPU)
    samples = read(clone)
    num_found = 0
    for sample, instances in zip(samples, detector.detect(np.stack([s.image() for s in samples])), strict=True):
        expected = oracle_masks(instances, sample.categories, detector_names=DETECTOR_NAMES, score_threshold=0.5)
        assert sample.masks().keys() == expected.keys()
        num_found += len(expected)
        for category, mask in sample.masks().items():
            assert (mask != expected[category].mask).mean() < 1e-3
    assert num_found > NUM_IMAGES // 2


def test_classes_without_names_and_too_few_names_are_one_line(clone: Path, checkpoint: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (copy / "categories.txt").write_text("dog\ncar\n")
    assert message(copy).endswith(
        f"{copy}/categories.txt has 2 categories, MODEL.ROI_HEADS.NUM_CLASSES is 20 ({copy}/config.yaml); "
        "write categories.txt for these classes"
    )
    (copy / "categories.txt").write_text("dog\n\ncar\n")
    assert "categories.txt: line 2 is empty" in message(copy)
    (copy / "categories.txt").unlink()
    assert "has no categories.txt, and its config.yaml names no data set in DATASETS.TRAIN" in message(copy)
    (copy / "config.yaml").write_text((copy / "config.yaml").read_text() + "DATASETS: {TRAIN: [coco_2017_train]}\n")
    assert "'coco_2017_train' in DATASETS.TRAIN has 80 categories, MODEL.ROI_HEADS.NUM_CLASSES is 20" in message(copy)


def message(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_detector(backend="detectron2", checkpoint=str(folder), mask_threshold=0.5, device=CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)
