import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCSegmentation

from diffground.data.voc import (
    VocDataset,
    VocItem,
    coappearing_counts,
    coappearing_labels,
    copy_voc,
    write_voc,
)
from diffground.errors import UserError


def item(id_: str, shade: int) -> VocItem:
    """A 6 x 8 image: label 12 on the left, the ignored border, and two objects of label 3 on the right."""
    image = np.full((6, 8, 3), shade, dtype=np.uint8)
    label = np.zeros((6, 8), dtype=np.uint8)
    objects = np.zeros((6, 8), dtype=np.uint8)
    label[:, :2], objects[:, :2] = 12, 1
    label[:, 2], objects[:, 2] = 255, 255
    label[:3, 4:], objects[:3, 4:] = 3, 2
    label[4:, 4:], objects[4:, 4:] = 3, 3
    return VocItem(id=id_, image=image, label=label, objects=objects)


@pytest.fixture
def root(tmp_path):
    assert write_voc(tmp_path / "devkit", "val", [item("2007_01", 10), item("2007_02", 200)]) == 2
    return tmp_path / "devkit"


def test_what_is_written_is_read_back(root):
    dataset = VocDataset(root, "val")
    assert len(dataset) == 2
    assert dataset.ids == ["2007_01", "2007_02"]
    image, label = dataset[1]
    assert (image.shape, image.dtype, label.dtype) == ((6, 8, 3), np.uint8, np.uint8)
    assert np.abs(image.astype(int) - 200).max() <= 2  # JPEG
    assert np.array_equal(label, item("", 0).label)


def test_instances_are_category_and_mask_of_every_object(root):
    instances = VocDataset(root, "val").instances(0)
    assert [(category, int(mask.sum())) for category, mask in instances] == [(11, 12), (2, 12), (2, 8)]
    assert not (instances[0][1] & instances[1][1]).any()


def test_a_grey_image_is_read_as_rgb(root):
    Image.new("L", (8, 6), 77).save(root / "JPEGImages/2007_01.jpg")
    assert VocDataset(root, "val")[0][0].shape == (6, 8, 3)


def test_a_missing_folder_says_what_to_set(tmp_path):
    with pytest.raises(UserError, match=r"none: no such data folder; set data\.root"):
        VocDataset(tmp_path / "none", "val")


def test_a_missing_list_names_those_there(root):
    with pytest.raises(UserError, match=r"trainval\.txt: no such image list; lists there: val"):
        VocDataset(root, "trainval")


def test_an_empty_list_is_an_error(root):
    (root / "ImageSets/Segmentation/none.txt").write_text("\n")
    with pytest.raises(UserError, match="names no image"):
        VocDataset(root, "none")


def test_missing_images_are_counted(root):
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_01\nx\ny\n")
    with pytest.raises(UserError, match=r"JPEGImages/x\.jpg: missing, and 1 more of the 3 images of list 'val'"):
        VocDataset(root, "val")


def test_a_label_beyond_the_vocabulary_is_an_error(root):
    with pytest.raises(UserError, match=r"2007_01\.png: labels must be 0..11 or 255, got \[12\]"):
        VocDataset(root, "val", num_categories=11)[0]
    VocDataset(root, "val", num_categories=12)[0]


def test_a_label_in_colours_is_an_error(root):
    path = root / "SegmentationClass/2007_01.png"
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(UserError, match="must be a palette image, got mode RGB"):
        VocDataset(root, "val")[0]


def test_a_label_of_another_size_is_an_error(root):
    Image.new("P", (8, 8)).save(root / "SegmentationClass/2007_01.png")
    with pytest.raises(UserError, match="differs from"):
        VocDataset(root, "val")[0]


def test_a_damaged_image_is_an_error(root):
    path = root / "JPEGImages/2007_01.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"2007_01\.jpg: not an image that can be read"):
        VocDataset(root, "val")[0]


def test_copying_takes_the_images_of_the_lists_alone(root, tmp_path):
    write_voc(root, "train", [item("2007_03", 50)])
    write_voc(root, "test", [item("2007_04", 50)])
    assert copy_voc(root, tmp_path / "copy", ["train", "val"]) == {"train": 1, "val": 2}
    assert sorted(p.stem for p in (tmp_path / "copy/JPEGImages").iterdir()) == ["2007_01", "2007_02", "2007_03"]
    assert np.array_equal(VocDataset(tmp_path / "copy", "val")[0][0], VocDataset(root, "val")[0][0])
    assert len(VocDataset(tmp_path / "copy", "train").instances(0)) == 3


def test_copying_checks_everything_first(root, tmp_path):
    (root / "SegmentationClass/2007_02.png").unlink()
    with pytest.raises(UserError, match=r"SegmentationClass/2007_02\.png: missing"):
        copy_voc(root, tmp_path / "copy", ["val"])
    assert not (tmp_path / "copy").exists()


def test_copying_works_without_instances(root, tmp_path):
    for path in (root / "SegmentationObject").iterdir():
        path.unlink()
    copy_voc(root, tmp_path / "copy", ["val"])
    assert len(VocDataset(tmp_path / "copy", "val")) == 2
    with pytest.raises(UserError, match="no such file"):
        VocDataset(tmp_path / "copy", "val").instances(0)


@pytest.fixture
def augmented(root):
    """A third image without SegmentationClass; grey label images of all three; the lists of the augmented set."""
    write_voc(root, "extra", [item("2007_03", 30)])
    (root / "SegmentationClass/2007_03.png").unlink()
    (root / "SegmentationObject/2007_03.png").unlink()
    folder = root / "SegmentationClassAug"
    folder.mkdir()
    for i, id_ in enumerate(("2007_01", "2007_02", "2007_03")):
        label = item("", 0).label
        label[0, 0] = i + 1
        Image.fromarray(label).save(folder / f"{id_}.png")  # mode L
    (root / "ImageSets/Segmentation/trainaug.txt").write_text("2007_01\n\n2007_03\n")
    return root


def test_grey_labels_of_another_folder_are_read(augmented):
    dataset = VocDataset(augmented, "trainaug", label_folder="SegmentationClassAug")
    assert dataset.ids == ["2007_01", "2007_03"]
    image, label = dataset[1]
    expected = item("", 0).label
    expected[0, 0] = 3
    assert image.shape == (6, 8, 3)
    assert np.array_equal(label, expected) and np.array_equal(dataset.label(1), expected)
    assert set(np.unique(label)) == {0, 3, 12, 255}
    with pytest.raises(UserError, match=r"SegmentationClass/2007_03\.png: missing, and 0 more of the 2 images"):
        VocDataset(augmented, "trainaug")


def test_a_list_of_file_pairs_names_the_same_images(augmented):
    lines = [f"/JPEGImages/{i}.jpg /SegmentationClassAug/{i}.png\n" for i in ("2007_01", "2007_03")]
    (augmented / "ImageSets/Segmentation/train_aug.txt").write_text("".join(lines))
    assert VocDataset(augmented, "train_aug", label_folder="SegmentationClassAug").ids == ["2007_01", "2007_03"]


def test_copied_labels_of_another_folder_become_the_labels(augmented, tmp_path):
    copy = tmp_path / "copy"
    assert copy_voc(augmented, copy, ["trainaug"], label_folder="SegmentationClassAug") == {"trainaug": 2}
    assert copy_voc(augmented, copy, ["val"]) == {"val": 2}  # 2007_01 is in both lists: the last copy stays
    assert not (copy / "SegmentationClassAug").exists()
    assert VocDataset(copy, "trainaug").label(1)[0, 0] == 3
    assert np.array_equal(VocDataset(copy, "val").label(1), item("", 0).label)
    assert len(VocDataset(copy, "val").instances(0)) == 3


def test_a_missing_label_folder_is_named(root):
    with pytest.raises(UserError, match=r"SegmentationClassAug/2007_01\.png: missing, and 1 more of the 2 images"):
        VocDataset(root, "val", label_folder="SegmentationClassAug")


def test_objects_of_another_size_are_an_error(root):
    Image.new("P", (8, 8)).save(root / "SegmentationObject/2007_01.png")
    with pytest.raises(UserError, match=r"SegmentationObject/2007_01\.png: size \(8, 8\) differs from \(6, 8\)"):
        VocDataset(root, "val").instances(0)


def test_pairs_are_labels_that_share_an_image(tmp_path):
    def of(id_, *labels):
        label = np.zeros((4, 4), dtype=np.uint8)
        label.flat[: len(labels)] = labels
        return VocItem(id=id_, image=np.zeros((4, 4, 3), np.uint8), label=label, objects=np.zeros_like(label))

    items = [of("a", 20, 3, 3), of("b", 3, 20, 255, 7), of("c", 5), of("d", 255), of("e", 7, 255, 20)]
    write_voc(tmp_path, "val", items)
    dataset = VocDataset(tmp_path, "val")
    # a: 3-20; b: 3-7, 3-20, 7-20; e: 7-20
    assert coappearing_counts(dataset) == {(3, 7): 1, (3, 20): 2, (7, 20): 2}
    assert coappearing_labels(dataset) == [(3, 7), (3, 20), (7, 20)]


def voc_palette():
    """Of 256 colours: bits 0, 3, 6 of a label are the highest of its red, 1, 4, 7 of its green, 2, 5 of its blue."""

    def level(label, channel):
        return sum((label >> (3 * i + channel) & 1) << (7 - i) for i in range(3))

    return [level(label, channel) for label in range(256) for channel in range(3)]


def test_a_devkit_by_hand_is_read_as_torchvision_reads_it(tmp_path):
    root = tmp_path / "VOCdevkit/VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    expected = {}
    for id_, (height, width), labels in (
        ("2007_000033", (24, 36), (1, 15)),
        ("2007_000042", (36, 24), (20,)),
        ("2011_003276", (17, 31), (7, 12, 19)),
    ):
        label = np.zeros((height, width), dtype=np.uint8)
        for k, value in enumerate(labels):
            label[4 : height - 4, 7 * k + 2 : 7 * k + 9] = 255  # the border of an object
            label[5 : height - 5, 7 * k + 3 : 7 * k + 8] = value
        mask = Image.fromarray(label, mode="P")
        mask.putpalette(voc_palette())
        mask.save(root / f"SegmentationClass/{id_}.png")
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"JPEGImages/{id_}.jpg")
        expected[id_] = label
    (root / "ImageSets/Segmentation/val.txt").write_text("".join(f"{id_}\n" for id_ in expected))

    ours, theirs = VocDataset(root, "val"), VOCSegmentation(tmp_path, year="2012", image_set="val")
    assert len(ours) == len(theirs) == 3 and ours.ids == list(expected)
    for i, by_hand in enumerate(expected.values()):
        (image, label), (their_image, their_label) = ours[i], theirs[i]
        assert their_label.mode == "P" and set(np.unique(by_hand)) >= {0, 255}
        np.testing.assert_array_equal(label, np.array(their_label))
        np.testing.assert_array_equal(label, by_hand)
        np.testing.assert_array_equal(image, np.array(their_image))
    # the colours are those that the devkit's pages show: person, and the border
    colours = np.array(Image.open(root / "SegmentationClass/2007_000033.png").convert("RGB"))
    assert colours[expected["2007_000033"] == 15][0].tolist() == [192, 128, 128]
    assert colours[expected["2007_000033"] == 255][0].tolist() == [224, 224, 192]
