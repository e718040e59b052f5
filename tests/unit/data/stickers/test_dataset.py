import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from diffground.data.stickers.dataset import compose_dataset, plan_scenes
from diffground.data.voc import VocDataset
from diffground.errors import UserError
from diffground.vocabulary import load_vocabulary

PASCAL_CATEGORIES = load_vocabulary("pascal").categories
SMALL = {"categories": PASCAL_CATEGORIES, "num_train": 6, "num_val": 5, "image_size": 32, "seed": 0}


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    root = tmp_path_factory.mktemp("world") / "real"
    return root, compose_dataset(root, **SMALL)


def digest(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("table", ["pascal", "sticker_coco"])
def test_every_category_is_shown_equally_often(table):
    num_categories = len(load_vocabulary(table).categories)
    plan = plan_scenes(30 * num_categories, categories=load_vocabulary(table).categories, rng=np.random.default_rng(0))
    counts = Counter(category for scene in plan for category in scene)
    assert len(counts) == num_categories
    assert max(counts.values()) - min(counts.values()) <= 1
    # a scene shows 0.45 x 1 + 0.35 x 2 + 0.20 x 3 = 1.75 objects
    assert min(counts.values()) == pytest.approx(30 * 1.75, abs=4)
    assert {len(scene) for scene in plan} == {1, 2, 3}
    assert all(len(set(scene)) == len(scene) for scene in plan)


def test_the_mini_world_reads_as_voc(composed):
    root, counts = composed
    for name, num in (("train", 6), ("val", 5)):
        dataset = VocDataset(root, name)
        assert len(dataset) == num
        shown = Counter()
        for i in range(num):
            image, label = dataset[i]
            assert image.shape == (32, 32, 3)
            instances = dataset.instances(i)
            assert 1 <= len(instances) <= 3
            for category, mask in instances:
                assert mask.any()
                assert (label[mask] == category + 1).all()
                shown[PASCAL_CATEGORIES[category]] += 1
            assert ((label > 0) == np.any([mask for _, mask in instances], axis=0)).all()
        assert shown == Counter({c: n for c, n in counts[name].items() if n})


def test_the_same_seed_gives_the_same_bytes_another_seed_others(composed, tmp_path):
    root, _ = composed
    compose_dataset(tmp_path / "same", **SMALL)
    compose_dataset(tmp_path / "other", **{**SMALL, "seed": 1})
    assert digest(tmp_path / "same") == digest(root)
    assert digest(tmp_path / "other") != digest(root)


def test_the_card_lists_the_artworks_that_val_alone_shows(composed):
    card = json.loads((composed[0] / "sticker_voc.json").read_text())
    assert card["held_out_artworks"]["dog"] == ["twemoji:1F9AE", "openmoji:1F429"]  # art.yaml
    assert card["held_out_artworks"]["bicycle"] == []


def test_labels_follow_the_order_of_the_categories_and_further_concepts_are_among_them(tmp_path):
    # `pizza` has one list of artworks, `dog` one for each image list (art.yaml)
    counts = compose_dataset(tmp_path / "real", **{**SMALL, "categories": ("pizza", "dog"), "num_train": 3})
    for name, num in (("train", 3), ("val", 5)):
        dataset = VocDataset(tmp_path / "real", name, num_categories=2)
        shown = Counter(category for i in range(num) for category, _ in dataset.instances(i))
        assert shown == {0: counts[name]["pizza"], 1: counts[name]["dog"]}
    card = json.loads((tmp_path / "real" / "sticker_voc.json").read_text())
    assert card["held_out_artworks"] == {"dog": ["twemoji:1F9AE", "openmoji:1F429"], "pizza": []}
    assert card["images_with_category"] == counts


def test_composing_again_replaces_what_was_composed(tmp_path):
    root = tmp_path / "real"
    for num_train in (3, 2):
        compose_dataset(root, **{**SMALL, "num_train": num_train, "num_val": 1})
    assert len(list((root / "JPEGImages").iterdir())) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["real"]


def test_a_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "mine.jpg").write_bytes(b"holiday")
    with pytest.raises(UserError, match="holds files that were not composed here"):
        compose_dataset(tmp_path, **SMALL)
    assert (tmp_path / "mine.jpg").read_bytes() == b"holiday"
