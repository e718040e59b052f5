"""data/real of a devkit and of COCO, from folders made by hand."""

import numpy as np
import pytest
from PIL import Image

from diffground.data.real import prepare_coco, prepare_voc
from diffground.data.voc import VocDataset, VocItem, write_voc
from diffground.errors import UserError
from diffground.vocabulary import load_vocabulary
from tests.unit.data.coco_folder import NAMES, SIZE, write_split


@pytest.fixture
def coco(tmp_path):
    write_split(tmp_path / "coco", "train2017", 20, seed=0)
    write_split(tmp_path / "coco", "val2017", 6, seed=1)
    return tmp_path / "coco"


def prepare(coco, root, **changes):
    settings = {
        "train_list": "train",
        "val_list": "val",
        "num_train": 0,
        "num_val": 0,
        "seed": 0,
        "annotations": "instances",
        "vocabulary": load_vocabulary("coco"),
        **changes,
    }
    return prepare_coco(coco, root, **settings)


def test_both_splits_of_coco_become_lists(coco, tmp_path):
    summaries = prepare(coco, tmp_path / "real", train_list="seen", val_list="judged")
    assert {name: s.num_images for name, s in summaries.items()} == {"seen": 20, "judged": 6}
    label = VocDataset(tmp_path / "real", "judged", num_categories=79).label(4)  # image 5: person and bus
    assert NAMES[5] == "bus"
    assert set(np.unique(label)) == {0, 1, 6}
    assert len(summaries["judged"].pairs) == 6


def test_zero_is_all_and_a_number_a_random_subset(coco, tmp_path):
    prepare(coco, tmp_path / "a", num_train=7, num_val=3, seed=1)
    prepare(coco, tmp_path / "b", num_train=7, num_val=3, seed=2)
    assert [len(VocDataset(tmp_path / "a", name, num_categories=79)) for name in ("train", "val")] == [7, 3]
    assert VocDataset(tmp_path / "a", "train").ids != VocDataset(tmp_path / "b", "train").ids
    with pytest.raises(UserError, match=r"this split has 6 images, 7 are asked for"):
        prepare(coco, tmp_path / "c", num_val=7)
    assert not (tmp_path / "c").exists()


def test_pascals_labels_on_coco_images(coco, tmp_path):
    prepare(coco, tmp_path / "real", vocabulary=load_vocabulary("pascal"))
    dataset = VocDataset(tmp_path / "real", "val", num_categories=20)
    # image 5: person is 15 and bus 6 in the devkit; image 2: car, 7
    assert set(np.unique(dataset.label(4))) == {0, 15, 6}
    assert set(np.unique(dataset.label(1))) == {0, 15, 7}


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (".", r"coco: no such COCO folder; set data\.root, or run `diffground fetch coco2017`"),
        ("annotations/instances_train2017.json", r"instances_train2017\.json: missing, COCO's folder is not complete"),
        ("train2017", r"train2017: missing, COCO's folder is not complete; run `diffground fetch coco2017`"),
    ],
)
def test_an_incomplete_folder_is_found_before_anything_is_written(coco, tmp_path, gone, message):
    (coco / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=message):
        prepare(coco, tmp_path / "real")
    assert not (tmp_path / "real").exists()


def test_a_half_extracted_archive_is_named(coco, tmp_path):
    for i in (3, 4, 5):
        (coco / f"val2017/{i:012d}.jpg").unlink()
    with pytest.raises(UserError, match=r"val2017/000000000003\.jpg: missing, and 2 more of 6 images"):
        prepare(coco, tmp_path / "real")


def test_panoptic_annotations_that_are_not_there(coco, tmp_path):
    with pytest.raises(UserError, match=r"panoptic_val2017\.json: missing, COCO's folder is not complete"):
        prepare(coco, tmp_path / "real", annotations="panoptic")


@pytest.fixture
def devkit(tmp_path):
    def item(id_):
        label = np.full((SIZE, SIZE), 3, dtype=np.uint8)
        return VocItem(id=id_, image=np.zeros((SIZE, SIZE, 3), np.uint8), label=label, objects=label)

    root = tmp_path / "devkit"
    write_voc(root, "val", [item("v1"), item("v2")])
    write_voc(root, "trainaug", [item("t1"), item("v2")])
    (root / "SegmentationClassAug").mkdir()
    for id_ in ("t1", "v2"):
        Image.fromarray(np.full((SIZE, SIZE), 9, dtype=np.uint8)).save(root / f"SegmentationClassAug/{id_}.png")
    return root


def copy(devkit, root, label_folder="SegmentationClassAug"):
    return prepare_voc(
        devkit, root, train_list="trainaug", val_list="val", label_folder=label_folder, num_categories=20
    )


def test_the_label_folder_is_the_training_lists_alone(devkit, tmp_path):
    assert copy(devkit, tmp_path / "real") == {"trainaug": 2, "val": 2}
    train, val = (VocDataset(tmp_path / "real", name) for name in ("trainaug", "val"))
    # v2 is in both lists: the validation label stays
    assert [int(train.label(i)[0, 0]) for i in (0, 1)] == [9, 3]
    assert [int(val.label(i)[0, 0]) for i in (0, 1)] == [3, 3]


def test_a_devkit_is_checked_before_it_is_copied(devkit, tmp_path):
    (devkit / "JPEGImages/v1.jpg").unlink()
    with pytest.raises(UserError, match=r"v1\.jpg: missing, and 0 more of the 2 images of list 'val'"):
        copy(devkit, tmp_path / "real")
    with pytest.raises(UserError, match=r"SegmentationClassBig/t1\.png: missing"):
        copy(devkit, tmp_path / "real", "SegmentationClassBig")
    assert not (tmp_path / "real").exists()
