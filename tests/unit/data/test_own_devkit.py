"""Devkits as users make them: names, suffixes, lists, and masks of 0 and 255."""

import logging

import numpy as np
import pytest
from PIL import Image

from diffground.data.masks import binary_label_of
from diffground.data.real import prepare_voc
from diffground.data.voc import VocDataset
from diffground.errors import UserError
from diffground.vocabulary import load_vocabulary

SIZE = (12, 9)  # width, height


def write(root, ids, *, value=12, suffix=".jpg", mask_suffix=".png", end="\n"):
    """Ids 0 to 2 are list train, the others list val. The mask has a box of `value`."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i, id_ in enumerate(ids):
        Image.new("RGB", SIZE, (10 * i, 100, 50)).save(root / f"JPEGImages/{id_}{suffix}")
        label = np.zeros(SIZE[::-1], np.uint8)
        label[2:6, 3:8] = value
        Image.fromarray(label).save(root / f"SegmentationClass/{id_}{mask_suffix}")
    for name, members in (("train", ids[:3]), ("val", ids[3:])):
        text = end.join(members) + 2 * end
        (root / f"ImageSets/Segmentation/{name}.txt").write_bytes(text.encode())
    return root


def prepare(source, root, **options):
    return prepare_voc(
        source, root, train_list="train", val_list="val", label_folder="SegmentationClass", num_categories=20, **options
    )


IDS = [f"im{i}" for i in range(6)]


@pytest.mark.parametrize(
    ("ids", "options"),
    [
        ([f"im {i}é" for i in range(6)], {}),
        ([f"im{i} 1" for i in range(6)], {}),
        (IDS, {"end": "\r\n"}),
        *((IDS, {"suffix": suffix}) for suffix in (".jpeg", ".JPG", ".PNG", ".webp", ".tif", ".bmp")),
        *((IDS, {"mask_suffix": suffix}) for suffix in (".PNG", ".tif", ".bmp")),
    ],
)
def test_names_and_suffixes_that_people_have(tmp_path, ids, options):
    write(tmp_path / "devkit", ids, **options)
    assert prepare(tmp_path / "devkit", tmp_path / "real") == {"train": 3, "val": 3}
    dataset = VocDataset(tmp_path / "real", "val")
    assert dataset.ids == ids[3:]
    for i in range(3):
        image, label = dataset[i]
        assert abs(int(image[0, 0, 0]) - 10 * (3 + i)) <= 3
        assert label[3, 4] == 12 and (label == 12).sum() == 20
    copied = dataset.files(0)[0]
    original = tmp_path / "devkit/JPEGImages" / f"{ids[3]}{options.get('suffix', '.jpg')}"
    assert copied.read_bytes() == original.read_bytes()


def test_accents_are_found_in_either_unicode_form(tmp_path):
    devkit = write(tmp_path, [f"e\u0301{i}" for i in range(6)])  # file names as macOS writes them
    (devkit / "ImageSets/Segmentation/val.txt").write_text("\u00e93\n", encoding="utf-8-sig")
    assert VocDataset(devkit, "val")[0][1].max() == 12


@pytest.mark.parametrize(
    "line",
    [
        "/JPEGImages/im 3.jpg /SegmentationClassAug/im 3.png",
        "JPEGImages/im 3.jpg\tSegmentationClass/im 3.png",
        "JPEGImages\\im 3.jpg SegmentationClass\\im 3.png",
        "JPEGImages/im 3.jpg",
        "im 3.jpg",
        "  im 3  ",
    ],
)
def test_a_line_may_be_one_path_or_two(tmp_path, line):
    devkit = write(tmp_path, [f"im {i}" for i in range(6)])
    (devkit / "ImageSets/Segmentation/val.txt").write_text(f"im 4\n{line}\n")
    assert VocDataset(devkit, "val").ids == ["im 4", "im 3"]


def test_an_id_with_a_dot_gets_a_name_that_a_shard_can_have(tmp_path):
    write(tmp_path / "devkit", [f"2024.05.0{i}" for i in range(6)])
    prepare(tmp_path / "devkit", tmp_path / "real")
    assert VocDataset(tmp_path / "real", "val").ids == ["2024_05_03", "2024_05_04", "2024_05_05"]


def test_an_id_named_twice_is_one_line(tmp_path):
    devkit = write(tmp_path, IDS)
    (devkit / "ImageSets/Segmentation/val.txt").write_text("im3\nim4\n\nim3\nim4\n")
    with pytest.raises(UserError, match=r"val\.txt: names 'im3' twice, in lines 1 and 4, and 1 more images several"):
        VocDataset(devkit, "val")


def test_two_images_of_one_name_are_one_line(tmp_path):
    devkit = write(tmp_path, IDS)
    Image.new("RGB", SIZE).save(devkit / "JPEGImages/im4.png")
    with pytest.raises(UserError, match=r"im4\.jpg: im4\.png has the same name with another suffix"):
        VocDataset(devkit, "val")


def test_a_list_that_is_not_utf_8_is_one_line(tmp_path):
    devkit = write(tmp_path, IDS)
    (devkit / "ImageSets/Segmentation/val.txt").write_bytes("imé\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"val\.txt: is not text in UTF-8"):
        VocDataset(devkit, "val")


def test_a_mask_with_loss_is_one_line(tmp_path):
    devkit = write(tmp_path, IDS, mask_suffix=".jpg")
    with pytest.raises(UserError, match=r"im3\.png: missing \(im3\.jpg is there, but must be one of \.png"):
        VocDataset(devkit, "val")


def test_masks_of_0_and_255_need_a_label(tmp_path):
    write(tmp_path / "devkit", IDS, value=255)
    with pytest.raises(UserError, match=r"im0\.png: holds only 0 and 255, .* data\.binary_label=NAME") as caught:
        prepare(tmp_path / "devkit", tmp_path / "real")
    assert "\n" not in str(caught.value) and not (tmp_path / "real").exists()


def test_255_becomes_the_label_that_is_given(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="diffground")
    write(tmp_path / "devkit", IDS, value=255)
    prepare(
        tmp_path / "devkit",
        tmp_path / "real",
        binary_label=binary_label_of("dog", load_vocabulary("pascal").categories),
    )
    label = VocDataset(tmp_path / "real", "val").label(0)
    assert (label == 12).sum() == 20 and (label == 0).sum() == 12 * 9 - 20
    assert "3 of 3 masks hold only 0 and 255, which is read as label 12" in caplog.text


def test_a_black_and_white_mask_is_one_of_0_and_255(tmp_path):
    write(tmp_path / "devkit", IDS, value=255)
    for path in (tmp_path / "devkit/SegmentationClass").iterdir():
        Image.open(path).convert("1").save(path)
    with pytest.raises(UserError, match="holds only 0 and 255"):
        prepare(tmp_path / "devkit", tmp_path / "real")
    prepare(tmp_path / "devkit", tmp_path / "real", binary_label=3)
    assert set(np.unique(VocDataset(tmp_path / "real", "val").label(0))) == {0, 3}


def test_what_255_means_is_decided_for_each_mask(tmp_path):
    devkit = write(tmp_path / "devkit", IDS)
    label = np.zeros(SIZE[::-1], np.uint8)
    label[:4], label[4] = 255, 3
    Image.fromarray(label).save(devkit / "SegmentationClass/im4.png")  # 255 next to a label
    Image.fromarray(np.where(label == 255, 255, 0).astype(np.uint8)).save(devkit / "SegmentationClass/im5.png")
    with pytest.raises(UserError, match=r"im5\.png: holds only 0 and 255"):
        prepare(devkit, tmp_path / "real")
    for meaning, expected in (("dog", {0, 12}), ("ignored", {0, 255})):
        prepare(devkit, tmp_path / "real", binary_label=binary_label_of(meaning, load_vocabulary("pascal").categories))
        found = [set(np.unique(VocDataset(tmp_path / "real", "val").label(i))) for i in range(3)]
        assert found == [{0, 12}, {0, 3, 255}, expected]


@pytest.mark.parametrize("value", [0, 255])
def test_a_list_without_a_labelled_pixel_is_an_error(tmp_path, value):
    write(tmp_path / "devkit", IDS, value=value)
    with pytest.raises(UserError, match=r"train\.txt: none of its 3 masks has a labelled pixel, .*im0\.png"):
        prepare(tmp_path / "devkit", tmp_path / "real", binary_label=255)
    assert not (tmp_path / "real").exists()


def test_a_binary_label_that_is_not_used_is_reported(tmp_path, caplog):
    prepare(write(tmp_path / "devkit", IDS), tmp_path / "real", binary_label=12)
    assert "data.binary_label: no mask holds only 0 and 255, so it is not used" in caplog.text


def test_a_binary_label_that_is_no_category_is_one_line():
    with pytest.raises(UserError, match=r"binary_label must be 'ignored' or one of the 20 .*got 'dogs'; closest: dog"):
        binary_label_of("dogs", load_vocabulary("pascal").categories)


@pytest.mark.parametrize(("height", "width"), [(9, 12), (12, 9)])
def test_a_mask_of_a_turned_image_belongs_to_the_pixels_of_its_size(tmp_path, caplog, height, width):
    devkit = write(tmp_path / "devkit", IDS, suffix=".png")
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(devkit / "JPEGImages/im3.png", exif=exif)
    Image.fromarray(np.full((height, width), 12, np.uint8)).save(devkit / "SegmentationClass/im3.png")
    prepare(devkit, tmp_path / "real")
    image, _ = VocDataset(tmp_path / "real", "val")[0]
    assert np.array_equal(image, pixels if height == 9 else np.rot90(pixels, -1))
    assert ("1 images have an EXIF orientation" in caplog.text) == (height == 9)
