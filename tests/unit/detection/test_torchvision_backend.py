"""The Mask R-CNN backend on a tiny model with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from diffground.detection.load import BACKENDS, load_detector
from diffground.detection.small_mask_rcnn import build_small_mask_rcnn, targets_from_index_maps
from diffground.detection.torchvision_backend import MaskRcnnDetector, save_small_mask_rcnn
from diffground.errors import UserError
from diffground.reproduction.config import DetectorConfig

CONFIG = {
    "num_categories": 2, "image_size": 32, "embedding_size": 8,
    "hidden_sizes": [8, 8, 16], "depths": [1, 1, 1], "fpn_channels": 8, "anchor_sizes": [[8], [16]],
    "anchor_ratios": [1.0], "box_head_dim": 16,
    "mask_head_channels": 8, "mask_head_layers": 1, "score_threshold": 0.0,
}  # fmt: skip
CPU = torch.device("cpu")


def _images(num: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = build_small_mask_rcnn(**CONFIG)
    save_small_mask_rcnn(model, tmp_path / "detector", category_names=["dog", "cat"], model_config=CONFIG)
    return tmp_path / "detector"


def _load(folder: Path | str, mask_threshold: float = 0.5) -> MaskRcnnDetector:
    return MaskRcnnDetector.load(str(folder), mask_threshold=mask_threshold, device=CPU)


def test_what_is_saved_is_loaded(folder: Path) -> None:
    torch.manual_seed(0)
    model = build_small_mask_rcnn(**CONFIG).half().float()  # weights are stored as float16
    original = MaskRcnnDetector(model, category_names=["background", "dog", "cat"], mask_threshold=0.5, device=CPU)
    loaded = _load(folder)
    assert loaded.labels == ("dog", "cat")
    for ours, theirs in zip(original.detect(_images(3)), loaded.detect(_images(3)), strict=True):
        assert len(ours.labels) > 0
        assert ours.labels == theirs.labels
        np.testing.assert_array_equal(ours.scores, theirs.scores)
        np.testing.assert_array_equal(ours.masks, theirs.masks)


def test_instances_are_of_the_image_s_size_and_best_first(folder: Path) -> None:
    (found,) = _load(folder).detect(_images(1))
    assert found.masks.shape == (len(found.labels), 32, 32) and found.masks.dtype == bool
    assert set(found.labels) <= {"dog", "cat"}
    assert (np.diff(found.scores) <= 0).all()


def test_an_image_s_instances_do_not_depend_on_its_batch(folder: Path) -> None:
    detector = _load(folder)
    images = _images(4)
    together = detector.detect(images)
    alone = [detector.detect(images[i : i + 1])[0] for i in range(4)]
    for a, b in zip(together, alone, strict=True):
        assert a.labels == b.labels
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
        assert (a.masks != b.masks).mean() < 1e-3


def test_a_higher_mask_threshold_gives_smaller_masks(folder: Path) -> None:
    low, high = (_load(folder, threshold).detect(_images(1))[0].masks for threshold in (0.3, 0.7))
    assert (high <= low).all() and high.sum() < low.sum()


def test_the_weights_are_frozen(folder: Path) -> None:
    model = _load(folder)._model
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_a_pickled_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "detector.pth").write_bytes(b"never read")
    with pytest.raises(UserError, match=r"'detector.pth', a pickle, which is never loaded"):
        _load(tmp_path)


@pytest.mark.parametrize("checkpoint", ["models/none", "MaskRCNN_ResNet50_FPN_Weights.COCO_V9"])
def test_a_missing_checkpoint_is_named_with_the_known_ones(checkpoint: str) -> None:
    with pytest.raises(UserError, match=rf"got '{checkpoint}'") as caught:
        _load(checkpoint)
    assert "MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1" in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        _load(tmp_path)


def test_weights_that_do_not_fit_the_config_are_refused_in_one_line(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["fpn_channels"] = 16
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="damaged or do not fit") as caught:
        _load(folder)
    assert "\n" not in str(caught.value)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged or do not fit"):
        _load(folder)


def test_params_know_the_same_backends() -> None:
    assert get_args(get_type_hints(DetectorConfig)["backend"]) == BACKENDS


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(UserError, match=r"detector\.backend must be one of torchvision, .*, got 'yolo'"):
        load_detector(backend="yolo", checkpoint="x", mask_threshold=0.5, device=CPU)


def test_targets_are_boxes_around_the_objects_of_an_index_map() -> None:
    index_map = torch.zeros(1, 8, 8, dtype=torch.uint8)
    index_map[0, 1:4, 2:7] = 1  # 15 pixels
    index_map[0, 6, 6] = 2  # 1 pixel: too small
    index_map[0, 5:8, 0:2] = 3  # without a label
    (target,) = targets_from_index_maps(index_map, torch.tensor([[7, 8, 0]]), min_area_px=4)
    assert target["boxes"].tolist() == [[2, 1, 7, 4]]
    assert target["labels"].tolist() == [7]
    assert int(target["masks"].sum()) == 15


def test_a_few_steps_of_training_lower_the_loss() -> None:
    torch.manual_seed(0)
    model = build_small_mask_rcnn(**CONFIG).train()
    images = torch.rand(4, 3, 32, 32) * 0.2
    index_maps = torch.zeros(4, 32, 32, dtype=torch.uint8)
    for i in range(4):
        index_maps[i, 8:24, 4 + i : 20 + i] = 1
    images += 0.7 * (index_maps > 0)[:, None]
    targets = targets_from_index_maps(index_maps, torch.tensor([[1], [1], [2], [2]]), min_area_px=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = sum(model(list(images), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]
