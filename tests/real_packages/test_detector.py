"""detector.backend 'detectron2' on a small Mask R-CNN of detectron2, after a few steps on scenes of the mini world."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import diffground
from diffground.data.labelled import image_sample, read_labelled_samples
from diffground.data.shards import write_shard
from diffground.detection.load import load_detector
from diffground.detection.oracle import oracle_masks
from diffground.errors import UserError
from diffground.reproduction.composition import compose_params
from diffground.vocabulary import load_vocabulary
from pretrain.detectron2_model import save
from tests.real_packages import small_mask_rcnn
from tests.real_packages.networks import CPU, WHY

pytest.importorskip("detectron2", reason=WHY)

ROOT = Path(__file__).parents[2]
NAMES = tuple(name or category for category, name in load_vocabulary("pascal").detector_names.items())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small_mask_rcnn.train(NAMES, iterations=10)
    folder = tmp_path_factory.mktemp("detector") / "small"
    save(model, folder, names=NAMES)
    return folder


def test_a_trained_model_of_own_categories_is_loaded_with_their_names(checkpoint: Path) -> None:
    detector = load_detector(backend="detectron2", checkpoint=str(checkpoint), mask_threshold=0.5, device=CPU)
    assert detector.labels == NAMES
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    found = detector.detect(images)
    assert len(found) == 2 and found[0].labels
    assert set(found[0].labels) <= set(NAMES)
    assert found[0].masks.shape == (len(found[0].labels), 128, 128)


def test_stage_detect_writes_the_masks_that_it_finds(checkpoint: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    named = ["dog", "car", "cat"]
    for part in ("train", "test"):
        samples = [
            image_sample(id=f"{part}-{i}", prompt="", categories=named, settings={}, image=image)
            for i, image in enumerate(images)
        ]
        write_shard(tmp_path / f"data/generated/{part}/000000.tar", samples)
    params = yaml.safe_load(compose_params("smoke", conf=ROOT / "conf", overrides=["tracking.enabled=false"]))
    params["detector"] |= {"backend": "detectron2", "checkpoint": str(checkpoint)}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    command = [sys.executable, ROOT / "stages/detect.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    detector = load_detector(backend="detectron2", checkpoint=str(checkpoint), mask_threshold=0.5, device=CPU)
    names = {name: name for name in named}
    found = [
        oracle_masks(instances, named, detector_names=names, score_threshold=0.0)
        for instances in detector.detect(images)
    ]
    assert any(found)
    for part in ("train", "test"):
        folders = {name: tmp_path / f"data/{name}/{part}" for name in ("generated", "oracle")}
        written = [sample.masks() for sample in read_labelled_samples(**folders)]
        assert len(written) == len(found)
        for masks, expected in zip(written, found, strict=True):
            assert masks.keys() == expected.keys()
            assert all(np.array_equal(masks[name], expected[name].mask) for name in masks)


def test_classes_without_names_and_too_few_names_are_one_line(checkpoint: Path, tmp_path: Path) -> None:
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
