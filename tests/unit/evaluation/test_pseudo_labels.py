"""Scores of pseudo label maps, by hand and against torchmetrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from diffground.data.shards import Sample, encode_json, encode_label, write_shard
from diffground.data.voc import VocDataset, VocItem, write_voc
from diffground.evaluation.pseudo_labels import score_label_shards, score_pseudo_labels
from diffground.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("pascal", seen=["cat", "cow"], unseen=["dog"])
CAT, COW, DOG, HORSE = (VOCABULARY.index(c) + 1 for c in ("cat", "cow", "dog", "horse"))


def row(*values: int) -> np.ndarray:
    return np.array([values], dtype=np.uint8)


def test_scores_by_hand() -> None:
    # cat: 2 of 3 pixels and one too many, 2 / 4. dog: 1 right, none wrong. Background: 1 right, one is taken for a cat,
    # one cat for it, 1 / 3. The horse is not used, one dog is undecided, and 255 is no one's.
    true = row(CAT, CAT, CAT, 0, 0, DOG, DOG, HORSE, 255)
    pseudo = row(CAT, CAT, 0, CAT, 0, DOG, 255, DOG, DOG)
    metrics = score_pseudo_labels([(pseudo, true)], vocabulary=VOCABULARY).metrics()
    assert metrics.pop("per_category") == pytest.approx({"cat": 50.0, "dog": 100.0})
    assert metrics == pytest.approx(
        {
            "seen": 50.0,
            "unseen": 100.0,
            "harmonic": 2 * 50 * 100 / 150,
            "background": 100 / 3,
            "undecided_frac": 1 / 7,
        }
    )


def test_scores_agree_with_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    true = rng.choice([0, CAT, COW, DOG, 255], size=(3, 16, 16)).astype(np.uint8)
    pseudo = np.where(rng.random(true.shape) < 0.6, true % 255, rng.choice([0, CAT, COW, DOG], size=true.shape))
    pseudo = np.where(rng.random(true.shape) < 0.1, 255, pseudo).astype(np.uint8)
    scores = score_pseudo_labels(zip(pseudo, true, strict=True), vocabulary=VOCABULARY).metrics()
    decided = torch.from_numpy(np.where(pseudo == 255, 255, true)).long()
    expected = (
        100
        * multiclass_jaccard_index(
            torch.from_numpy(pseudo % 255).long(), decided, num_classes=21, ignore_index=255, average=None
        ).numpy()
    )
    assert scores["seen"] == pytest.approx(expected[[CAT, COW]].mean(), abs=1e-3)
    assert scores["unseen"] == pytest.approx(expected[DOG], abs=1e-3)
    assert scores["background"] == pytest.approx(expected[0], abs=1e-3)


def test_shards_are_compared_with_the_images_they_name(tmp_path: Path) -> None:
    labels = {"x": np.full((4, 6), CAT, dtype=np.uint8), "y": np.full((5, 5), DOG, dtype=np.uint8)}
    write_voc(
        tmp_path / "voc",
        "train",
        (
            VocItem(id=id_, image=np.zeros((*label.shape, 3), dtype=np.uint8), label=label, objects=label)
            for id_, label in labels.items()
        ),
    )
    dataset = VocDataset(tmp_path / "voc", "train")
    assert score_label_shards(tmp_path / "none", dataset, vocabulary=VOCABULARY).metrics() == {
        "seen": None,
        "unseen": None,
        "harmonic": None,
        "background": None,
        "per_category": {},
        "undecided_frac": None,
    }
    for i, id_ in enumerate(("y", "x")):
        members = {"label.png": encode_label(labels[id_]), "meta.json": encode_json({"image_id": id_})}
        write_shard(tmp_path / "shards" / f"{i}.tar", [Sample(key=f"real-{id_}", members=members)])
    scores = score_label_shards(tmp_path / "shards", dataset, vocabulary=VOCABULARY)
    assert (scores.table.seen, scores.table.unseen, scores.undecided_frac) == (100, 100, 0)
