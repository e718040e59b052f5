"""Training sets of Protocol II: what each shows, and that no label of an unseen category leaks."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from diffground.data.palette import IGNORE
from diffground.data.shards import Sample, encode_label, encode_png, write_shard
from diffground.data.voc import VocDataset, VocItem, write_voc
from diffground.report.tables import TRAINING_TITLES
from diffground.reproduction.config import load_params
from diffground.segmentation.card import segmenter_card
from diffground.segmentation.config import TrainingSet
from diffground.segmentation.maskformer import MaskFormerSegmenter, build_maskformer
from diffground.segmentation.protocol2 import training_source
from diffground.segmentation.train import train_segmenter
from diffground.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("pascal", unseen=["dog", "sofa"], seen=["cat", "person"])
CAT, DOG, SOFA, HORSE = (VOCABULARY.index(c) + 1 for c in ("cat", "dog", "sofa", "horse"))


def devkit(root: Path, *, unseen_label: int) -> VocDataset:
    """Four images of a cat, an unseen category, a horse (neither seen nor unseen) and background, in bands."""
    label = np.repeat(np.array([CAT, unseen_label, HORSE, 0], dtype=np.uint8), 8)[:, None].repeat(32, axis=1)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(4)]
    write_voc(root, "train", [VocItem(id=f"{i}", image=x, label=label, objects=label) for i, x in enumerate(images)])
    return VocDataset(root, "train")


def shard_of(folder: Path, value: int) -> Path:
    """One image, all of one label."""
    members = {
        "image.png": encode_png(np.zeros((32, 32, 3), dtype=np.uint8)),
        "label.png": encode_label(np.full((32, 32), value, dtype=np.uint8)),
    }
    write_shard(folder / "000000.tar", [Sample(key="sample-000000", members=members)])
    return folder


@pytest.fixture
def synthetic(tmp_path: Path) -> Path:
    """One image, all dog."""
    return shard_of(tmp_path / "synthetic", DOG)


def test_each_training_set_shows_the_labels_it_may(tmp_path: Path, synthetic: Path) -> None:
    real = devkit(tmp_path / "voc", unseen_label=DOG)

    pseudo = shard_of(tmp_path / "pseudo", CAT)

    def labels(name: str) -> list[set[int]]:
        source = training_source(name, synthetic=synthetic, pseudo=pseudo, real=real, vocabulary=VOCABULARY)
        return [set(np.unique(source[i][1]).tolist()) for i in range(len(source))]

    assert labels("synthetic") == [{DOG}]
    assert labels("text2mask") == [{CAT}]
    assert labels("real_seen_only") == [{0, CAT, IGNORE}] * 4
    assert labels("synthetic_and_real_seen") == [{DOG}] + [{0, CAT, IGNORE}] * 4
    assert labels("real_all") == [{0, CAT, DOG, IGNORE}] * 4


@pytest.mark.parametrize(("name", "leaks"), [("synthetic_and_real_seen", False), ("real_all", True)])
def test_poisoned_labels_of_unseen_categories_change_nothing(
    tmp_path: Path, synthetic: Path, backbone: Path, name: str, leaks: bool
) -> None:
    weights = []
    for label in (DOG, SOFA):
        real = devkit(tmp_path / str(label), unseen_label=label)
        torch.manual_seed(0)
        model = build_maskformer(
            backbone=str(backbone),
            num_labels=21,
            matching="fixed",
            hidden_dim=32,
            num_queries=21,
            decoder_layers=1,
            ffn_dim=32,
        )
        segmenter = MaskFormerSegmenter(
            model, categories=VOCABULARY.categories, image_size=64, device=torch.device("cpu")
        )
        source = training_source(name, synthetic=synthetic, pseudo=tmp_path / "none", real=real, vocabulary=VOCABULARY)
        train_segmenter(segmenter, source, iterations=3, batch_size=4, learning_rate=1e-3, weight_decay=0.0, seed=0)
        weights.append(segmenter.model.state_dict())
    same = all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert same is not leaks


def test_every_training_set_has_a_card_and_a_title() -> None:
    config = load_params(Path(__file__).parents[3] / "params.yaml").segmenter
    names = get_args(TrainingSet)
    assert set(TRAINING_TITLES) == set(names)
    cards = {segmenter_card(name, config=config, num_images=3, unseen=("dog",), final_loss=0.5) for name in names}
    assert len(cards) == len(names) == 5
