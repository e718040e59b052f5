"""Annotation files in COCO's format with names, ids and categories of their own."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths

from diffground.data.coco_export import ExportAnnotations, convert_export
from diffground.data.real import prepare_coco
from diffground.data.voc import VocDataset
from diffground.errors import UserError
from diffground.vocabulary import load_vocabulary

WIDTH, HEIGHT = 120, 90
LABELS = {"forklift": 1, "pallet jack": 2}
RING = [[30, 20, 80, 20, 80, 60, 30, 60]]
RUNS = [20 + 30 * 90, 40] + [50, 40] * 9  # column by column: rows 20 to 59 of columns 30 to 39
CROWD = {"size": [HEIGHT, WIDTH], "counts": [*RUNS, WIDTH * HEIGHT - sum(RUNS)]}


def annotation(id_, image_id, category_id, segmentation, crowd=0):
    return {
        "id": id_, "image_id": image_id, "category_id": category_id, "segmentation": segmentation, "iscrowd": crowd
    }  # fmt: skip


@pytest.fixture
def content(tmp_path):
    (tmp_path / "coco/pictures").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (WIDTH, HEIGHT), (20 * i, 90, 90)).save(tmp_path / f"coco/pictures/a{i}.png")
    return {
        "images": [
            {"id": 100 * (i + 1), "file_name": f"pictures/a{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(4)
        ],
        "categories": [{"id": 3, "name": "forklift"}, {"id": 90, "name": "Pallet_Jack"}],
        "annotations": [
            annotation(7, 100, 90, RING),
            annotation(9, 200, 3, CROWD, crowd=1),
            annotation(12, 200, 3, []),
            annotation(13, 200, 3, [[1, 1, 2, 2]]),
            annotation(14, 999, 3, RING),
        ],
    }


def convert(content, tmp_path, labels=LABELS, **options):
    path = tmp_path / "coco/my export.json"
    path.write_text(json.dumps(content))
    reader = ExportAnnotations(path, labels, tmp_path / "coco")
    return convert_export(reader, tmp_path / "real", image_list="val", **options)


def test_an_export_becomes_labels_and_what_is_skipped_is_named(content, tmp_path, caplog):
    summary = convert(content, tmp_path)
    assert (summary.num_images, summary.num_empty) == (4, 3)
    dataset = VocDataset(tmp_path / "real", "val")
    assert dataset.ids == [f"pictures_a{i}" for i in range(4)]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[20:60, 30:80] = 2
    assert np.array_equal(dataset.label(0), expected)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[20:60, 30:40] = 255  # a crowd
    assert np.array_equal(dataset.label(1), expected)
    assert dataset[3][0][0, 0].tolist() == [60, 90, 90]
    assert "1 skipped, annotations of images that are not there; the first is annotation 14 of image 999" in caplog.text
    assert "2 skipped, annotations without a mask (empty, or polygons of fewer than three points)" in caplog.text
    assert len(caplog.messages) == 2


def test_holes_and_compressed_run_lengths(content, tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:40, 10:40], mask[20:30, 20:30] = 1, 0
    encoded = run_lengths.encode(np.asfortranarray(mask))
    text = {"size": encoded["size"], "counts": encoded["counts"].decode()}
    content["annotations"] = [annotation("x", 100, 3, text), annotation("x", 200, 90, text)]
    convert(content, tmp_path)
    assert np.array_equal(VocDataset(tmp_path / "real", "val").label(0), mask)
    assert np.array_equal(VocDataset(tmp_path / "real", "val").label(1), 2 * mask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].append({**c["images"][0]}), "1 skipped, image records that repeat one"),
        (lambda c: c["images"][3].update(id=300), "2 skipped, images of different files with one id"),
        (lambda c: c["images"][3].update(file_name="b.png"), "1 skipped, images whose file is missing"),
        (lambda c: c["images"][3].update(file_name="../b.png"), "1 skipped, images whose file_name leaves the folder"),
        (lambda c: c["images"][3].update(width=7), "1 skipped, images of another size than the file says"),
        (lambda c: c["annotations"].append(annotation(1, 300, 4, RING)), "1 skipped, annotations of categories that"),
        (
            lambda c: c["annotations"].append({"id": 5, "image_id": 300, "category_id": 3}),
            "3 skipped, annotations with",
        ),
        (
            lambda c: c["annotations"].append(annotation(1, 300, 3, {"size": [5, 5], "counts": [25]})),
            r"whose mask cannot be read; the first is annotation 1 (mask of size (5, 5), image of size (90, 120))",
        ),
        (
            lambda c: c["annotations"].append(annotation(1, 300, 3, {"size": [HEIGHT, WIDTH], "counts": [25]})),
            "annotation 1 (run lengths of 25 pixels, image of 10800)",
        ),
        (lambda c: c["annotations"].append(annotation(1, 300, 3, [[0, 0, 1e9, 0, 1e9, 9]])), "far outside the image"),
        (lambda c: c["annotations"].append(annotation(1, 300, 3, [["a"] * 6])), "1 skipped, annotations whose mask"),
        (
            lambda c: c["categories"].append({"id": 4, "name": "ladder"}),
            "1 of 3 categories are not in the vocabulary, their objects are background: ladder",
        ),
    ],
)
def test_what_cannot_be_used_is_counted_and_named(content, tmp_path, caplog, change, message):
    change(content)
    convert(content, tmp_path)
    assert message in caplog.text
    assert 2 in VocDataset(tmp_path / "real", "val").label(0)


def test_no_category_of_the_vocabulary_is_one_line(content, tmp_path):
    with pytest.raises(UserError, match="none of its 2 categories is one of the vocabulary: forklift, Pallet_Jack"):
        convert(content, tmp_path, labels={"dog": 1})


def test_no_image_that_is_there_is_one_line(content, tmp_path):
    for path in (tmp_path / "coco/pictures").iterdir():
        path.unlink()
    with pytest.raises(
        UserError, match=r"no image can be used \(4: images whose file is missing\); data\.root must be"
    ):
        convert(content, tmp_path)


def test_no_labelled_pixel_is_an_error_that_names_list_and_image(content, tmp_path):
    content["annotations"] = []
    with pytest.raises(UserError, match=r"list 'val': none of its 4 images has a pixel of a labelled .*a0\.png"):
        convert(content, tmp_path)
    assert not (tmp_path / "real/ImageSets/Segmentation/val.txt").exists()


def prepare(tmp_path, annotations):
    return prepare_coco(
        tmp_path / "coco", tmp_path / "real", train_list="train", val_list="val", num_train=0, num_val=0, seed=0,
        annotations=annotations, vocabulary=load_vocabulary("pascal"),
    )  # fmt: skip


def test_names_of_the_vocabulary_prompts_and_detectors_are_known(content, tmp_path):
    content["categories"] = [{"id": 3, "name": "TV"}, {"id": 90, "name": "tv-monitor"}]
    content["annotations"].append(annotation(1, 300, 3, RING))
    (tmp_path / "coco/my export.json").write_text(json.dumps(content))
    summaries = prepare(tmp_path, "my export.json")
    assert [(name, summary.num_images) for name, summary in summaries.items()] == [("val", 4), ("train", 0)]
    dataset = VocDataset(tmp_path / "real", "val")
    assert [int(dataset.label(i)[30, 50]) for i in (0, 2)] == [20, 20]


def test_two_files_are_training_and_evaluation(content, tmp_path):
    content["categories"][0]["name"] = "dog"
    content["annotations"] = [annotation(i, 100 * i, 3, RING) for i in (1, 2, 3, 4)]
    for split, images in (("train", content["images"][:3]), ("val", content["images"][3:])):
        (tmp_path / f"coco/{split}_set.json").write_text(json.dumps({**content, "images": images}))
    prepare(tmp_path, str(tmp_path / "coco/{split}_set.json"))
    assert [len(VocDataset(tmp_path / "real", name)) for name in ("train", "val")] == [3, 1]
    with pytest.raises(UserError, match=r"val_sets\.json: no such file; set data\.annotations to a path in data\.root"):
        prepare(tmp_path, "{split}_sets.json")
