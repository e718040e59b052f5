"""segmenter.backend 'official': the authors' code trains on our shards, and our stages score what it trained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import diffground
from diffground.data.palette import IGNORE
from diffground.data.shards import Sample, encode_label, encode_png, write_shard
from diffground.data.voc import VocDataset
from diffground.evaluation.zs3 import score_segmenter
from diffground.reproduction.composition import compose_params
from diffground.reproduction.config import load_params
from diffground.segmentation.detectron2_backend import OfficialMaskFormerSegmenter
from diffground.segmentation.maskformer import MaskFormerSegmenter
from diffground.segmentation.official_training import OfficialTask
from diffground.segmentation.protocol2 import fit_segmenter
from diffground.segmentation.sources import SegmentationSource
from diffground.training.resume import Unfinished
from diffground.vocabulary import load_vocabulary
from tests.real_packages.networks import CPU, RESNET18, RESNET50, WHY, save_backbone

pytest.importorskip("detectron2", reason=WHY)
pytest.importorskip("mask_former", reason=WHY)

ROOT = Path(__file__).parents[2]
CATEGORIES = ("red", "green", "blue")
Pictures = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("backbone") / "resnet", RESNET50)


@pytest.fixture
def pictures() -> Pictures:
    """Twelve 64 px images: a red (label 1), green (2) or blue (3) square on grey (0)."""
    rng = np.random.default_rng(0)
    items = []
    for i in range(12):
        image, label = np.full((64, 64, 3), 128, dtype=np.uint8), np.zeros((64, 64), dtype=np.uint8)
        y, x = rng.integers(4, 28, 2)
        image[y : y + 28, x : x + 28] = np.eye(3, dtype=np.uint8)[i % 3] * 255
        label[y : y + 28, x : x + 28] = 1 + i % 3
        items.append((image, label))
    return items


def fit(source: SegmentationSource, backbone: Path, **changes: Any) -> tuple[OfficialMaskFormerSegmenter, list[float]]:
    unfinished = changes.pop("unfinished", None)
    config = replace(
        load_params(ROOT / "params.yaml").segmenter,
        **{
            "backend": "official",
            "matching": "bipartite",
            "backbone": str(backbone),
            "image_size": 64,
            "hidden_dim": 32,
            "num_queries": 6,
            "decoder_layers": 2,
            "ffn_dim": 32,
            "batch_size": 4,
            "backbone_lr_factor": 1.0,
            **changes,
        },
    )
    trained, curve = fit_segmenter(
        source, categories=CATEGORIES, config=config, device=CPU, description="official", unfinished=unfinished
    )
    assert isinstance(trained, OfficialMaskFormerSegmenter)
    return trained, curve.losses


def weights(trained: OfficialMaskFormerSegmenter) -> dict[str, torch.Tensor]:
    return trained.model.state_dict()


def test_it_learns_the_colours_of_squares(pictures: Pictures, backbone: Path) -> None:
    trained, losses = fit(pictures, backbone, iterations=800, learning_rate=2e-3)
    assert len(losses) == 16 and losses[-1] < 0.7 * losses[0]
    found = [scores.argmax(axis=0) for scores in trained.predict([image for image, _ in pictures])]
    right = [(one == label)[label > 0].mean() for one, (_, label) in zip(found, pictures, strict=True)]
    assert len(right) == 12 and np.mean(right) > 0.7, right


def test_it_is_the_network_of_detectron2_s_registry(pictures: Pictures, backbone: Path) -> None:
    from detectron2.modeling import META_ARCH_REGISTRY

    trained, _ = fit(pictures, backbone, iterations=1)
    assert type(trained.model) is META_ARCH_REGISTRY.get("MaskFormer")
    assert type(trained.model).__module__ == "mask_former.mask_former_model"


def test_what_it_saves_predicts_the_same_with_transformers(pictures: Pictures, backbone: Path, tmp_path: Path) -> None:
    trained, _ = fit(pictures, backbone, iterations=3)
    trained.save(tmp_path / "saved", card="")
    images = [image for image, _ in pictures]
    for loaded in (MaskFormerSegmenter, OfficialMaskFormerSegmenter):
        again = loaded.load(tmp_path / "saved", device=CPU)
        assert again.categories == CATEGORIES
        for found, expected in zip(again.predict(images), trained.predict(images), strict=True):
            assert found.std() > 0
            np.testing.assert_allclose(found, expected, atol=1e-4)


class Stopping:
    """The pictures, until one too many is read."""

    def __init__(self, pictures: Pictures, last: int) -> None:
        self._pictures, self._left = pictures, last

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._pictures[i]


def test_a_training_that_was_stopped_ends_with_the_same_weights(
    pictures: Pictures, backbone: Path, tmp_path: Path
) -> None:
    state = Unfinished(tmp_path / "state", {}, 1e-9)
    with pytest.raises(KeyboardInterrupt):
        fit(Stopping(pictures, 9), backbone, iterations=3, unfinished=state)  # within step 3
    left = state.load()
    assert left is not None and left.values["iteration"] == 2
    resumed, losses = fit(pictures, backbone, iterations=3, unfinished=state)
    undisturbed, expected = fit(pictures, backbone, iterations=3)
    assert losses == expected
    assert all(torch.equal(weights(resumed)[name], tensor) for name, tensor in weights(undisturbed).items())


@pytest.mark.parametrize("sizes", [(4,), (2, 2), (1, 3)], ids=str)
def test_the_shares_of_parts_add_up_to_the_loss_of_the_batch(
    sizes: tuple[int, ...], pictures: Pictures, backbone: Path
) -> None:
    trained, _ = fit(pictures, backbone, iterations=1)
    pictures[1] = (pictures[1][0], np.full((64, 64), IGNORE, dtype=np.uint8))  # one without a labelled pixel
    task = OfficialTask(trained.model, pictures, image_size=64, device=CPU)
    drawn = task.draw([0, 1, 2, 3], torch.Generator().manual_seed(0))
    trained.model.train()
    for module in trained.model.modules():  # neither dropout nor batch norm: their outputs depend on the part
        if isinstance(module, torch.nn.Dropout | torch.nn.MultiheadAttention | torch.nn.BatchNorm2d):
            module.eval()
    whole = task.load(drawn, slice(0, 4))
    starts = np.cumsum([0, *sizes])
    parts = [task.load(drawn, slice(start, start + size)) for start, size in zip(starts, sizes, strict=False)]
    totals = torch.stack([task.count(part) for part in parts]).sum(dim=0)
    assert totals.tolist() == task.count(whole).tolist()
    with torch.no_grad():
        loss = sum(float(task(part, totals)) for part in parts)
        expected = sum(float(value) for value in trained.model(official_inputs(whole)).values())
    assert loss == pytest.approx(expected, rel=1e-4)


def official_inputs(part: Any) -> list[dict[str, Any]]:
    """As the authors' data set mapper makes them of an image and its label map."""
    from detectron2.structures import Instances

    inputs = []
    for image, label in zip(part.images, part.labels, strict=True):
        classes = [value for value in np.unique(label.numpy()).tolist() if value != IGNORE]
        masks = torch.zeros((0, 64, 64)) if not classes else torch.stack([label == value for value in classes])
        instances = Instances((64, 64), gt_classes=torch.tensor(classes, dtype=torch.int64), gt_masks=masks)
        inputs.append({"image": 255 * image, "instances": instances})
    return inputs


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The smoke profile with a ResNet-18, real images of the mini world, and shards of them as the synthetic set."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    settings = ["tracking.enabled=false", "split=pascal_split1", "data.num_train=24", "data.num_val=12"]
    params = yaml.safe_load(compose_params("smoke", conf=ROOT / "conf", overrides=settings))
    params["segmenter"] |= {"backend": "official", "matching": "bipartite", "backbone": "backbone", "hidden_dim": 64}
    params["segmenter"] |= {"training_sets": ["synthetic", "real_all"], "iterations": 4}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    save_backbone(tmp_path / "backbone", RESNET18)
    run(tmp_path, "prepare_data")
    real = VocDataset(tmp_path / "data/real", "train", num_categories=20)
    members = [{"image.png": encode_png(real[i][0]), "label.png": encode_label(real[i][1])} for i in range(len(real))]
    samples = [Sample(key=f"synthesis-{i:06d}", members=member) for i, member in enumerate(members)]
    write_shard(tmp_path / "data/synthetic/000000.tar", samples)
    return tmp_path


def run(folder: Path, stage: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    command = [sys.executable, f"stages/{stage}.py"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_the_stages_train_with_it_and_score_what_it_trained(clone: Path) -> None:
    run(clone, "train_maskformer")
    run(clone, "evaluate_zs3")
    trained = json.loads((clone / "reports/metrics/train_maskformer.json").read_text())
    scores = json.loads((clone / "reports/metrics/evaluate_zs3.json").read_text())
    vocabulary = load_vocabulary("pascal", unseen=load_params(clone / "params.yaml").vocabulary.unseen)
    real = VocDataset(clone / "data/real", "val", num_categories=20)
    for name in ("synthetic", "real_all"):
        assert trained[name]["num_images"] == 24
        folder = clone / "models/segmenter" / name
        assert "the authors' MaskFormer on detectron2" in (folder / "README.md").read_text()
        official = OfficialMaskFormerSegmenter.load(folder, device=CPU)
        table = score_segmenter(official, real, vocabulary=vocabulary, description=name).table()
        assert scores[name]["seen"] == pytest.approx(table.seen, abs=0.5)  # the network's size is not the image's


def test_settings_that_the_authors_code_does_not_have_are_one_line(clone: Path) -> None:
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["segmenter"]["matching"] = "fixed"
    (clone / "params.yaml").write_text(yaml.safe_dump(params))
    told = run(clone, "train_maskformer", code=2).stderr
    assert told.startswith("error: segmenter.matching must be 'bipartite' where segmenter.backend is 'official'")
    assert told.count("\n") == 1
