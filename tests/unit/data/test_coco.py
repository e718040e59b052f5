"""Against pycocotools' annToMask and a loop over pixels, on annotation files made by hand."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from diffground.data.coco import coco_labels, convert_coco
from diffground.data.voc import VocDataset, coappearing_labels
from diffground.errors import UserError

HEIGHT, WIDTH = 20, 30
LABELS = coco_labels()
CATEGORY_IDS = {name: 3 * i + 1 for i, name in enumerate(sorted([*LABELS, "mouse", "grass-merged"]))}


def box(x0, y0, x1, y1):
    """A polygon."""
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def blob(seed, *, compressed):
    """Run lengths of a random mask."""
    mask = np.asfortranarray(np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.2, dtype=np.uint8)
    if compressed:
        encoded = run_lengths.encode(mask)
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}
    changes = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel("F")])))
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *changes, mask.size]).tolist()}


# image id -> (category, segmentation, iscrowd)
OBJECTS = {
    7: [
        ("person", box(2, 2, 20, 18), 0),
        ("tie", box(6, 4, 9, 12), 0),  # on the person
        ("tv", box(15, 10, 29, 19), 0),  # overlaps the person, smaller
        ("person", blob(0, compressed=False), 1),
        ("cat", blob(1, compressed=True), 0),
        ("dining table", [*box(1, 14, 6, 18), *box(8, 14, 12, 18)], 0),  # two parts
        ("mouse", box(2, 15, 4, 17), 0),  # on the table, and background
        ("mouse", box(24, 1, 28, 5), 1),
    ],
    12: [("person", box(0, 0, 29, 19), 1), ("dog", box(5, 5, 10, 10), 0)],
    30: [("person", box(3, 3, 9, 9), 0), ("dog", box(12, 3, 18, 9), 0)],
    31: [],
}


def write_images(root, split="val"):
    for folder in ("annotations", f"{split}2017"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for id_ in OBJECTS:
        Image.new("RGB", (WIDTH, HEIGHT), (id_, 100, 200)).save(root / f"{split}2017/{id_:012d}.jpg")
    return [{"id": i, "file_name": f"{i:012d}.jpg", "height": HEIGHT, "width": WIDTH} for i in OBJECTS]


def content_of(images):
    annotations = [
        {"image_id": image_id, "category_id": CATEGORY_IDS[name], "segmentation": segmentation, "iscrowd": crowd}
        for image_id, found in OBJECTS.items()
        for name, segmentation, crowd in found
    ]
    return {
        "images": images,
        "annotations": [{"id": 100 + i, **annotation} for i, annotation in enumerate(annotations)],
        "categories": [{"id": id_, "name": name} for name, id_ in CATEGORY_IDS.items()],
    }


def write_instances(root, content):
    (root / "annotations/instances_val2017.json").write_text(json.dumps(content))


@pytest.fixture
def source(tmp_path):
    write_instances(tmp_path / "coco", content_of(write_images(tmp_path / "coco")))
    return tmp_path / "coco"


def convert(source, root, **options):
    return convert_coco(source, root, split="val", image_list="val", **options)


def test_labels_are_those_of_coco_sim():
    assert len(LABELS) == 79
    assert list(LABELS.values()) == list(range(1, 80))
    assert "mouse" not in LABELS
    # by hand from the paper's list
    known = {"person": 1, "motorcycle": 4, "airplane": 5, "couch": 58, "potted plant": 59, "dining table": 61, "tv": 63}
    assert {name: LABELS[name] for name in known} == known
    assert LABELS["toothbrush"] == 79


def expected_maps(source, image_id):
    """Label and number of the annotation on top, by a loop over pixels."""
    coco = COCO(str(source / "annotations/instances_val2017.json"))
    names = {id_: name for name, id_ in CATEGORY_IDS.items()}
    found = [(names[a["category_id"]], a, coco.annToMask(a).astype(bool)) for a in coco.imgToAnns[image_id]]
    label, top = np.zeros((HEIGHT, WIDTH), int), np.zeros((HEIGHT, WIDTH), int)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            here = [(mask.sum(), name, a["id"]) for name, a, mask in found if mask[y, x] and not a["iscrowd"]]
            if here:
                _, name, top[y, x] = min(here)
                label[y, x] = LABELS.get(name, 0)
            elif any(mask[y, x] and a["iscrowd"] and name in LABELS for name, a, mask in found):
                label[y, x] = top[y, x] = 255
    return label, np.where(label == 0, 0, top)


def test_the_smaller_object_lies_on_top_and_a_crowd_is_ignored_where_none_lies(source, tmp_path):
    summary = convert(source, tmp_path / "voc")
    dataset = VocDataset(tmp_path / "voc", "val", num_categories=79)
    assert dataset.ids == [f"{i:012d}" for i in (7, 12, 30, 31)]
    assert (summary.num_images, summary.num_empty) == (4, 1)
    for i, image_id in enumerate(OBJECTS):
        image, label = dataset[i]
        expected, top = expected_maps(source, image_id)
        assert np.array_equal(label, expected)
        assert abs(int(image[0, 0, 0]) - image_id) <= 3
        objects = np.array(Image.open(tmp_path / f"voc/SegmentationObject/{image_id:012d}.png"))
        pairs = {(int(a), int(b)) for a, b in zip(objects.ravel(), top.ravel(), strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})  # the same objects
        assert np.array_equal(objects == 255, top == 255)
    names = ("person", "tie", "tv", "cat", "dining table")
    assert set(np.unique(dataset.label(0))) == {0, 255, *(LABELS[name] for name in names)}


def test_a_mouse_covers_the_table_as_background(source, tmp_path):
    convert(source, tmp_path / "voc")
    label = VocDataset(tmp_path / "voc", "val", num_categories=79).label(0)
    cat = run_lengths.decode(blob(1, compressed=True)).astype(bool)
    crowd_free = np.zeros_like(cat)
    crowd_free[15:17, 2:4] = True
    assert (crowd_free & ~cat).any()
    assert set(label[crowd_free & ~cat]) == {0}
    assert set(label[14:18, 8:12][~cat[14:18, 8:12]]) == {LABELS["dining table"]}


def test_pairs_of_the_written_images_are_counted(source, tmp_path):
    summary = convert(source, tmp_path / "voc")
    assert coappearing_labels(VocDataset(tmp_path / "voc", "val", num_categories=79)) == list(summary.pairs)
    # person is a mere crowd in image 12
    assert summary.pairs[LABELS["person"], LABELS["dog"]] == 1
    assert len(summary.pairs) == 10 + 1  # five categories in image 7
    assert "11 pairs of categories share an image" in str(summary)


def test_instances_are_read_back(source, tmp_path):
    convert(source, tmp_path / "voc")
    instances = VocDataset(tmp_path / "voc", "val", num_categories=79).instances(2)
    assert sorted((label, int(mask.sum())) for label, mask in instances) == [
        (LABELS["person"] - 1, 36),
        (LABELS["dog"] - 1, 36),
    ]


def test_images_are_copied_byte_for_byte(source, tmp_path):
    convert(source, tmp_path / "voc")
    name = "000000000007.jpg"
    assert (tmp_path / "voc/JPEGImages" / name).read_bytes() == (source / "val2017" / name).read_bytes()


def test_a_subset_follows_its_seed_and_lies_in_a_larger_one(source, tmp_path):
    def ids(num, seed):
        convert(source, tmp_path / "voc", num_images=num, seed=seed)
        return VocDataset(tmp_path / "voc", "val", num_categories=79).ids

    assert ids(2, 5) == ids(2, 5)
    assert set(ids(2, 5)) < set(ids(3, 5))
    assert len({tuple(ids(2, seed)) for seed in range(8)}) > 1
    with pytest.raises(UserError, match=r"this split has 4 images, 5 are asked for"):
        ids(5, 0)


def test_missing_images_are_found_before_anything_is_written(source, tmp_path):
    (source / "val2017/000000000012.jpg").unlink()
    with pytest.raises(UserError, match=r"000000000012\.jpg: missing, and 0 more of 4 images; run `diffground fetch"):
        convert(source, tmp_path / "voc")
    assert not (tmp_path / "voc").exists()


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([], "IndexError"),
        ({"size": [HEIGHT, WIDTH + 1], "counts": [10, HEIGHT * (WIDTH + 1) - 10]}, r"mask of size \(20, 31\)"),
        (None, "TypeError"),
    ],
)
def test_a_mask_that_cannot_be_read_is_named(source, tmp_path, segmentation, reason):
    content = json.loads((source / "annotations/instances_val2017.json").read_text())
    content["annotations"][3]["segmentation"] = segmentation
    write_instances(source, content)
    with pytest.raises(UserError, match=rf"instances_val2017\.json: annotation 103 cannot be read \({reason}"):
        convert(source, tmp_path / "voc")


def test_another_annotation_file_is_an_error(source, tmp_path):
    path = source / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    write_instances(source, {**content, "categories": content["categories"][:5]})
    with pytest.raises(UserError, match=r"lacks 74 of 79 categories, the first 'baseball glove'"):
        convert(source, tmp_path / "voc")
    write_instances(source, {"images": [], "categories": []})
    with pytest.raises(UserError, match="is no COCO annotation file, has no 'annotations'"):
        convert(source, tmp_path / "voc")
    path.write_text(json.dumps(content)[:-9])
    with pytest.raises(UserError, match="cannot be read as JSON"):
        convert(source, tmp_path / "voc")
    path.unlink()
    with pytest.raises(UserError, match="no such file; run `diffground fetch coco2017`"):
        convert(source, tmp_path / "voc")


# segment id -> (category, rows, iscrowd); the rest of the image is no segment
SEGMENTS = {
    70_000: ("person", slice(0, 4), 0),
    65_535: ("person", slice(4, 6), 1),
    3: ("grass-merged", slice(6, 9), 0),
    300: ("mouse", slice(9, 10), 0),
    16_000_000: ("toothbrush", slice(12, 15), 0),
}


@pytest.fixture
def panoptic(tmp_path):
    source = tmp_path / "coco"
    image = write_images(source)[0]
    folder = source / "annotations/panoptic_val2017"
    folder.mkdir()
    colours = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for id_, (_, rows, _) in SEGMENTS.items():
        colours[rows] = list(id_.to_bytes(3, "little"))
    Image.fromarray(colours).save(folder / "000000000007.png")
    infos = [{"id": i, "category_id": CATEGORY_IDS[name], "iscrowd": c} for i, (name, _, c) in SEGMENTS.items()]
    content = {
        **content_of([image]),
        "annotations": [{"image_id": 7, "file_name": "000000000007.png", "segments_info": infos}],
    }
    (source / "annotations/panoptic_val2017.json").write_text(json.dumps(content))
    return source


def test_panoptic_segments_become_labels(panoptic, tmp_path):
    convert(panoptic, tmp_path / "voc", annotations="panoptic")
    dataset = VocDataset(tmp_path / "voc", "val", num_categories=79)
    rows = [1] * 4 + [255] * 2 + [0] * 4 + [255] * 2 + [79] * 3 + [255] * 5  # crowd; stuff and mouse; nothing
    assert dataset.label(0).tolist() == [[value] * WIDTH for value in rows]
    assert [(label, int(mask.sum())) for label, mask in dataset.instances(0)] == [(0, 4 * WIDTH), (78, 3 * WIDTH)]


def test_a_segment_without_a_category_is_an_error(panoptic, tmp_path):
    path = panoptic / "annotations/panoptic_val2017.json"
    path.write_text(path.read_text().replace("70000", "70001"))
    with pytest.raises(UserError, match=r"000000000007\.png: segment 70000 is not in panoptic_val2017\.json"):
        convert(panoptic, tmp_path / "voc", annotations="panoptic")


def test_panoptic_without_its_images_says_what_to_unpack(panoptic, tmp_path):
    (panoptic / "annotations/panoptic_val2017/000000000007.png").unlink()
    missing = r"07\.png: missing, .* of 1 segment maps; unpack panoptic_val2017\.zip next to"
    with pytest.raises(UserError, match=missing):
        convert(panoptic, tmp_path / "voc", annotations="panoptic")
    assert not (tmp_path / "voc").exists()
