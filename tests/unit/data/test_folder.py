"""Images and masks in a plain folder."""

import logging

import numpy as np
import pytest
from PIL import Image

from diffground.data.folder import prepare_folder
from diffground.data.voc import VocDataset
from diffground.errors import UserError

SIZE = (12, 9)  # width, height


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "mine"
    for i, name in enumerate(("a.jpg", "day 1/é.PNG", "day 1/b.c.webp", "day 2/b.jpeg")):
        for folder in ("images", "masks"):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, (20 * i, 100, 50)).save(root / "images" / name)
        label = np.zeros(SIZE[::-1], np.uint8)
        label[2:6, 3:8], label[0] = i + 1, 255
        Image.fromarray(label).save((root / "masks" / name).with_suffix(".png"))
    return root


def prepare(source, root, **options):
    return prepare_folder(source, root, train_list="train", val_list="val", num_categories=20, **options)


def test_without_lists_all_images_are_for_evaluation(source, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="diffground")
    counts = prepare(source, tmp_path / "real")
    assert [(count.num_images, count.num_unlabelled) for count in counts.values()] == [(0, 0), (4, 0)]
    assert "has no list, so all 4 images are for evaluation" in caplog.text
    dataset = VocDataset(tmp_path / "real", "val")
    assert dataset.ids == ["a", "day 1_b_c", "day 1_é", "day 2_b"]
    assert [int(dataset[i][1][3, 4]) for i in range(4)] == [1, 3, 2, 4]
    assert [round(int(dataset[i][0][0, 0, 0]) / 20) for i in range(4)] == [0, 2, 1, 3]
    assert (dataset[0][1][0] == 255).all()
    assert len(VocDataset(tmp_path / "real", "train", may_be_empty=True)) == 0
    assert (tmp_path / "real/JPEGImages/a.jpg").read_bytes() == (source / "images/a.jpg").read_bytes()


def test_lists_name_images_with_or_without_suffix(source, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="diffground")
    (source / "train.txt").write_text("day 1/é.PNG\r\nimages/day 2/b.jpeg\r\n")
    (source / "val.txt").write_text("a\n")
    prepare(source, tmp_path / "real")
    assert VocDataset(tmp_path / "real", "train").ids == ["day 1_é", "day 2_b"]
    assert VocDataset(tmp_path / "real", "val").ids == ["a"]
    assert "1 images are in no list and are skipped" in caplog.text


def test_an_image_for_training_and_evaluation_is_reported(source, tmp_path, caplog):
    for name in ("train", "val"):
        (source / f"{name}.txt").write_text("a\n")
    prepare(source, tmp_path / "real")
    assert "1 images are also in the list for training, the first is 'a'" in caplog.text


def test_images_without_masks_are_ignored_everywhere(source, tmp_path, caplog):
    (source / "masks/a.png").unlink()
    counts = prepare(source, tmp_path / "real")
    assert counts["val"].num_unlabelled == 1
    assert "1 of 4 images of list 'val' have no mask" in caplog.text
    assert (VocDataset(tmp_path / "real", "val").label(0) == 255).all()


def test_pictures_alone_are_taken(source, tmp_path, caplog):
    (source / "masks").rename(tmp_path / "elsewhere")
    assert prepare(source, tmp_path / "real")["val"].num_unlabelled == 4
    assert "4 of 4 images of list 'val' have no mask" in caplog.text
    assert len(VocDataset(tmp_path / "real", "val")[3]) == 2


@pytest.mark.parametrize(("mask_size", "is_turned"), [((9, 12), True), ((12, 9), False)])
def test_a_turned_photograph_is_written_as_its_mask_is(source, tmp_path, mask_size, is_turned):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", SIZE, "blue")
    image.paste("red", (0, 0, 6, 9))  # on the left; upright, at the top
    image.save(source / "images/a.jpg", exif=exif, quality=95, subsampling=0)
    Image.new("L", mask_size, 1).save(source / "masks/a.png")
    prepare(source, tmp_path / "real")
    found, label = VocDataset(tmp_path / "real", "val")[0]
    assert label.shape == mask_size[::-1] == found.shape[:2]
    assert (found[1, 7 if is_turned else 8, 0] > 150) == is_turned  # red


def test_masks_of_0_and_255_need_a_label(source, tmp_path):
    label = np.zeros(SIZE[::-1], np.uint8)
    label[:4] = 255
    Image.fromarray(label).save(source / "masks/a.png")
    with pytest.raises(UserError, match=r"a\.png: holds only 0 and 255, .* data\.binary_label=NAME"):
        prepare(source, tmp_path / "real")
    assert not (tmp_path / "real").exists()
    assert prepare(source, tmp_path / "real", binary_label=12)["val"].num_binary == 1
    assert set(np.unique(VocDataset(tmp_path / "real", "val").label(0))) == {0, 12}


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda s: (s / "images").rename(s / "img"), r"images: has no images .*; put the images there"),
        (lambda s: (s / "images/a.jpg").unlink(), r"masks/a\.png: there is no image .*images/a, and none for 0 more"),
        (lambda s: (s / "images/a.jpg").write_text("x"), r"images/a\.jpg: not an image that can be read"),
        (lambda s: Image.new("L", (5, 5), 1).save(s / "masks/a.png"), r"a\.png: size \(5, 5\) differs from .*a\.jpg"),
        (
            lambda s: Image.new("L", SIZE, 77).save(s / "masks/a.png"),
            r"a\.png: labels must be 0\.\.20 or 255, got \[77",
        ),
        (lambda s: (s / "train.txt").write_text("a\n"), r"val\.txt: no such file; list the images for evaluation"),
        (
            lambda s: (s / "val.txt").write_text("a\nx\n"),
            r"images/x: missing, and 0 more of the 2 images of list 'val'",
        ),
        (lambda s: (s / "val.txt").write_text("a\na.jpg\n"), r"val\.txt: names 'a' twice, in lines 1 and 2"),
        (lambda s: (s / "val.txt").write_text("\n"), r"val\.txt: names no image"),
    ],
)
def test_a_folder_that_does_not_fit_is_one_line_before_anything_is_written(source, tmp_path, break_it, message):
    break_it(source)
    with pytest.raises(UserError, match=message) as caught:
        prepare(source, tmp_path / "real")
    assert "\n" not in str(caught.value) and not (tmp_path / "real").exists()


def test_masks_without_a_labelled_pixel_are_an_error(source, tmp_path):
    for path in (source / "masks").rglob("*.png"):
        Image.new("L", SIZE).save(path)
    with pytest.raises(UserError, match=r"list 'val': none of its 4 masks has a labelled pixel, the first is .*a\.png"):
        prepare(source, tmp_path / "real")


def test_other_files_are_reported(source, tmp_path, caplog):
    (source / "images/notes.docx").write_text("")
    (source / "images/.DS_Store").write_text("")
    prepare(source, tmp_path / "real")
    assert "images: 1 files are skipped, as their suffix is that of no image; the first is" in caplog.text
