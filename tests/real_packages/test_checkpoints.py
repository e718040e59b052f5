"""Checkpoints go to the authors' MaskFormer and come back: both codes predict the same with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from diffground.segmentation.maskformer import MaskFormerSegmenter
from diffground.segmentation.official_checkpoint import export_maskformer, import_maskformer
from tests.real_packages.networks import (
    CPU,
    IMAGES,
    RESNET18,
    RESNET50,
    WHY,
    assert_equal_scores,
    official_scores,
    save_backbone,
    segmenter,
    spread_norms,
)

pytest.importorskip("detectron2", reason=WHY)
pytest.importorskip("mask_former", reason=WHY)


@pytest.fixture(scope="module", params=[RESNET18, RESNET50], ids=["ResNet-18", "narrow ResNet-50"])
def sent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ours/, a segmenter; model.pth and model.yaml, exported from it."""
    folder = tmp_path_factory.mktemp("sent")
    segmenter(save_backbone(folder / "backbone", request.param)).save(folder / "ours", card="")
    export_maskformer(folder / "ours", folder / "model.pth")
    return folder


def config_of(file: Path) -> Any:
    """As the authors' train_net.py reads it."""
    from detectron2.config import get_cfg
    from detectron2.projects.deeplab import add_deeplab_config
    from mask_former import add_mask_former_config

    config = get_cfg()
    add_deeplab_config(config)
    add_mask_former_config(config)
    config.merge_from_file(str(file))
    config.MODEL.DEVICE = "cpu"
    return config


def test_an_exported_segmenter_predicts_the_same_in_the_authors_code(sent: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model

    model = build_model(config_of(sent / "model.yaml"))
    DetectionCheckpointer(model).load(str(sent / "model.pth"))
    stored = torch.load(sent / "model.pth", weights_only=True)["model"]
    loaded = {name: tensor for name, tensor in model.state_dict().items() if "num_batches_tracked" not in name}
    assert loaded.keys() == stored.keys()  # the checkpointer only warns of names that it does not find
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)
    ours = MaskFormerSegmenter.load(sent / "ours", device=CPU)
    assert_equal_scores(official_scores(model), ours.predict(IMAGES))


def test_what_the_authors_code_trained_and_saved_predicts_the_same_here(sent: Path, tmp_path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model
    from detectron2.structures import Instances

    torch.manual_seed(5)
    config = config_of(sent / "model.yaml")
    model = build_model(config)
    spread_norms(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :32], masks[1, 32:] = True, True
    objects = Instances((64, 64), gt_classes=torch.tensor([0, 2]), gt_masks=masks)
    losses = model.train()(
        [{"image": torch.from_numpy(image).permute(2, 0, 1), "instances": objects} for image in IMAGES]
    )
    sum(losses.values()).backward()
    optimizer.step()
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_final", iteration=1)
    (tmp_path / "config.yaml").write_text(config.dump())

    told = import_maskformer(
        tmp_path / "model_final.pth", tmp_path / "imported", categories=("red", "green", "blue"), image_size=64
    )
    assert told.endswith("was checked in config.yaml")
    ours = MaskFormerSegmenter.load(tmp_path / "imported", device=CPU)
    assert_equal_scores(ours.predict(IMAGES), official_scores(model))


def test_the_settings_name_no_key_that_the_authors_config_does_not_have(sent: Path) -> None:
    written = yaml.safe_load((sent / "model.yaml").read_text())
    config = config_of(sent / "model.yaml")
    assert config.MODEL.META_ARCHITECTURE == "MaskFormer"
    assert config.MODEL.RESNETS.DEPTH == written["MODEL"]["RESNETS"]["DEPTH"] in (18, 50)
