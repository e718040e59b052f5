"""The authors' MaskFormer: its configuration, and what is said where it is not installed."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import ResNetBackbone, ResNetConfig

from diffground.errors import UserError
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import load_params
from diffground.segmentation.config import SegmenterConfig, check_backend
from diffground.segmentation.detectron2_backend import OfficialMaskFormerSegmenter
from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer
from diffground.segmentation.official_settings import official_settings
from diffground.segmentation.protocol2 import fit_segmenter

CPU = torch.device("cpu")
IS_INSTALLED = find_spec("detectron2") is not None and find_spec("mask_former") is not None
RESNET18 = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}


def _segmenter(folder: Path, **resnet: object) -> MaskFormerSegmenter:
    torch.manual_seed(0)
    config = ResNetConfig(**{**RESNET18, **resnet}, out_features=["stage1", "stage2", "stage3", "stage4"])
    ResNetBackbone(config).save_pretrained(folder)
    model = build_maskformer(
        backbone=str(folder),
        num_labels=4,
        matching="bipartite",
        hidden_dim=32,
        num_queries=5,
        decoder_layers=2,
        ffn_dim=16,
    )
    return MaskFormerSegmenter(model, categories=("red", "green", "blue"), image_size=64, device=CPU)


def _settings(folder: Path, **resnet: object) -> dict[str, object]:
    return official_settings(_segmenter(folder, **resnet).model.config.to_dict())


def test_the_settings_are_those_of_our_model(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    expected = {
        "MODEL.RESNETS.DEPTH": 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 4,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
        "MODEL.SEM_SEG_HEAD.MASK_DIM": 32,
        "MODEL.MASK_FORMER.HIDDEN_DIM": 32,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 5,
        "MODEL.MASK_FORMER.DEC_LAYERS": 2,
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 16,
        "MODEL.MASK_FORMER.NHEADS": 8,
        # in units of 0 to 255
        "MODEL.PIXEL_MEAN": [127.5] * 3,
        "MODEL.PIXEL_STD": [63.75] * 3,
    }
    assert {key: settings[key] for key in expected} == expected


@pytest.mark.parametrize(("depths", "depth"), [([3, 4, 6, 3], 50), ([3, 4, 23, 3], 101), ([3, 8, 36, 3], 152)], ids=str)
def test_a_resnet_of_bottlenecks_is_known_by_its_depths(depths: list[int], depth: int, tmp_path: Path) -> None:
    # an eighth of the usual width
    settings = _settings(
        tmp_path, layer_type="bottleneck", depths=depths, embedding_size=8, hidden_sizes=[32, 64, 128, 256]
    )
    assert settings["MODEL.RESNETS.DEPTH"] == depth
    assert settings["MODEL.RESNETS.WIDTH_PER_GROUP"] == 8
    assert settings["MODEL.RESNETS.RES2_OUT_CHANNELS"] == 32


@pytest.mark.parametrize(
    "resnet",
    [
        {"depths": [1, 1, 1, 1]},
        {"hidden_sizes": [64, 64, 128, 256]},
        {"embedding_size": 8, "hidden_sizes": [8, 16, 32, 64]},
        {"downsample_in_first_stage": True},
    ],
    ids=["depths", "widths that do not double", "narrow basic blocks", "stride 8"],
)
def test_a_backbone_that_detectron2_does_not_build_is_refused(resnet: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a ResNet-18, 34, 50, 101 or 152") as caught:
        _settings(tmp_path, **resnet)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(IS_INSTALLED, reason="says how to install what is installed here")
def test_without_the_packages_one_line_says_where_they_are(tmp_path: Path) -> None:
    _segmenter(tmp_path / "backbone").save(tmp_path / "segmenter", card="")
    with pytest.raises(UserError, match=r"facebookresearch/detectron2.*facebookresearch/MaskFormer") as caught:
        OfficialMaskFormerSegmenter.load(tmp_path / "segmenter", device=CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(IS_INSTALLED, reason="says how to install what is installed here")
def test_a_training_without_the_packages_is_the_same_line(tmp_path: Path) -> None:
    _segmenter(tmp_path / "backbone")
    config = _config(backend="official", matching="bipartite", backbone=str(tmp_path / "backbone"), hidden_dim=32)
    with pytest.raises(UserError, match=r"make detectron2 SOURCES=….*docs/detectron2\.md") as caught:
        fit_segmenter([], categories=("red",), config=config, device=CPU, description="official")
    assert "\n" not in str(caught.value)


def _config(**changes: object) -> SegmenterConfig:
    return replace(load_params(Path(__file__).parents[3] / "params.yaml").segmenter, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matching": "fixed"}, "segmenter.matching must be 'bipartite' where segmenter.backend is 'official', got"),
        ({"matching": "bipartite", "mixed_precision": "bf16"}, "segmenter.mixed_precision must be 'none' where"),
    ],
)
def test_settings_that_the_authors_code_does_not_have_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_backend(_config(backend="official", **changes))
    check_backend(_config(backend="transformers", **changes))
    check_backend(_config(backend="official", matching="bipartite"))


def test_the_profile_of_the_paper_trains_with_the_authors_code_when_asked_to(tmp_path: Path) -> None:
    conf = Path(__file__).parents[3] / "conf"
    paper, official = (
        yaml.safe_load(compose_params("paper_voc", conf=conf, overrides=overrides))["segmenter"]
        for overrides in ([], ["segmenter=official"])
    )
    assert official == {**paper, "backend": "official"}


def test_in_one_of_several_processes_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = _config(backend="official", matching="bipartite")
    with pytest.raises(UserError, match="'official' trains in one process"):
        fit_segmenter([], categories=("red",), config=config, device=CPU, description="official")


def test_a_folder_that_is_no_segmenter_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no segmenter"):
        OfficialMaskFormerSegmenter.load(tmp_path, device=CPU)


@pytest.mark.skipif(not IS_INSTALLED, reason="needs detectron2 and mask_former")
def test_the_authors_code_computes_our_scores_and_saves_our_weights(tmp_path: Path) -> None:
    ours = _segmenter(tmp_path / "backbone")
    ours.save(tmp_path / "ours", card="")
    theirs = OfficialMaskFormerSegmenter.load(tmp_path / "ours", device=CPU)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_allclose(theirs.predict([image])[0], ours.predict([image])[0], atol=1e-4)
    theirs.save(tmp_path / "theirs", card="")
    back = MaskFormerSegmenter.load(tmp_path / "theirs", device=CPU)
    np.testing.assert_array_equal(back.predict([image])[0], ours.predict([image])[0])
