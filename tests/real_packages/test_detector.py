"""detector.backend 'detectron2' on a small Mask R-CNN of detectron2, after a few steps on scenes of the mini world."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from diffground.detection.load import load_detector
from diffground.errors import UserError
from diffground.vocabulary import load_vocabulary
from pretrain.detectron2_model import save
from tests.real_packages import small_mask_rcnn
from tests.real_packages.networks import CPU, WHY

pytest.importorskip("detectron2", reason=WHY)

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
