"""What other libraries read from an export: as many images and objects as the shards have, with their masks."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import supervision
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage
from torchvision.datasets import VOCSegmentation

from diffground.exchange.export import FORMATS, ExportOptions, export_shards
from tests.unit.exchange.example_shards import CATEGORIES, NAMES, drawn_label, keys, write_shards

NUM, SIZE = 30, 48
ROOT = Path(__file__).parents[3]


def labels() -> dict[str, np.ndarray]:
    return {key: drawn_label(i) for i, key in enumerate(keys(range(NUM)))}


def regions(label: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Category's label and mask of each region, counted here on its own."""
    found = []
    for value in (1, 2, 4):
        numbered, num = ndimage.label(label == value, structure=np.ones((3, 3)))
        found += [(value, numbered == i + 1) for i in range(num)]
    return found


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def num_holes(mask: np.ndarray) -> int:
    return int(ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)[1])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"), num=NUM)


@pytest.fixture(scope="module")
def exported(shards: Path) -> Path:
    """All formats at once, in three splits."""
    out = shards.parent / "exported"
    options = ExportOptions(formats=tuple(FORMATS), split="0.6,0.2,0.2")
    lines = export_shards(shards, out, categories=CATEGORIES, options=options)
    assert lines[0].startswith(f"{out}: voc, coco, yolo, hf, png; 30 images (train ")
    assert {path.name for path in out.iterdir()} == {*FORMATS, ".diffground-export"}
    return out


def test_the_drawings_have_holes_several_objects_and_ignored_pixels() -> None:
    found = [region for label in labels().values() for region in regions(label)]
    assert sum(num_holes(mask) for _, mask in found) >= 30 + 2 * 10
    assert len(found) == 30 + 2 * 15 + 10
    assert sum(255 in label for label in labels().values()) == 6


def test_torchvision_reads_the_devkit(exported: Path) -> None:
    dataset = VOCSegmentation(exported / "voc", year="2012", image_set="trainval")
    kept = [Path(path).stem for path in dataset.images]
    test = (exported / "voc/VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt").read_text().split()
    assert sorted([*kept, *test]) == keys(range(NUM))
    assert len(dataset) == len(kept) > 15
    for i, key in enumerate(kept):
        image, label = dataset[i]
        assert image.size == (SIZE, SIZE)
        assert np.array_equal(np.asarray(label), labels()[key])
        objects = np.asarray(
            Image.open(exported / f"voc/VOCdevkit/VOC2012/SegmentationObject/{key}.png"), dtype=np.uint8
        )
        expected = regions(labels()[key])
        assert set(np.unique(objects).tolist()) - {0, 255} == set(range(1, len(expected) + 1))
        assert np.array_equal(objects == 255, labels()[key] == 255)
        for value, mask in expected:
            [number] = np.unique(objects[mask])
            assert np.array_equal(objects == number, mask), value


@pytest.mark.parametrize("polygons", [False, True])
def test_pycocotools_reads_instances_with_holes(
    shards: Path, exported: Path, tmp_path: Path, polygons: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    root, splits = exported / "coco", ["train", "val", "test"]
    if polygons:
        root, splits = tmp_path / "polygons", ["train"]
        options = ExportOptions(formats=("coco",), polygons=True)
        export_shards(shards, root, categories=CATEGORIES, options=options)
    num_images, num_objects = 0, 0
    for split in splits:
        coco = COCO(root / f"annotations/instances_{split}.json")
        assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == [(1, "cat"), (2, "dog"), (4, "bus")]
        assert len(coco.anns) == len(coco.dataset["annotations"])
        for image in coco.loadImgs(coco.getImgIds()):
            num_images += 1
            assert (root / "images" / split / image["file_name"]).is_file()
            expected = regions(labels()[Path(image["file_name"]).stem])
            annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
            num_objects += len(annotations)
            assert sorted(a["category_id"] for a in annotations) == sorted(value for value, _ in expected)
            for annotation in annotations:
                mask = coco.annToMask(annotation).astype(bool)
                best = max(expected, key=lambda region: iou(region[1], mask))
                assert best[0] == annotation["category_id"]
                assert iou(best[1], mask) == 1.0 if not polygons else iou(best[1], mask) >= 0.97
                assert num_holes(mask) == num_holes(best[1])
                assert (annotation["iscrowd"], annotation["area"]) == (0, best[1].sum())
                (rows,), (columns,) = np.nonzero(best[1].any(axis=1)), np.nonzero(best[1].any(axis=0))
                height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
                assert annotation["bbox"] == [columns[0], rows[0], width, height]
                assert isinstance(annotation["segmentation"], list) == polygons
    assert (num_images, num_objects) == (NUM, sum(len(regions(label)) for label in labels().values()))


def test_panoptic_segments_are_the_objects_and_semantic_maps_the_labels(exported: Path) -> None:
    root, num = exported / "coco", 0
    for split in ("train", "val", "test"):
        panoptic = json.loads((root / f"annotations/panoptic_{split}.json").read_text())
        instances = json.loads((root / f"annotations/instances_{split}.json").read_text())
        assert [c["isthing"] for c in panoptic["categories"]] == [1, 1, 1]
        assert {a["image_id"] for a in panoptic["annotations"]} == {image["id"] for image in instances["images"]}
        for annotation in panoptic["annotations"]:
            num += 1
            label = labels()[Path(annotation["file_name"]).stem]
            pixels = np.asarray(Image.open(root / f"annotations/panoptic_{split}" / annotation["file_name"]), np.uint32)
            ids = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
            assert set(np.unique(ids)) - {0} == {segment["id"] for segment in annotation["segments_info"]}
            assert len(annotation["segments_info"]) == len(regions(label))
            for segment in annotation["segments_info"]:
                mask = ids == segment["id"]
                assert (label[mask] == segment["category_id"]).all() and mask.sum() == segment["area"]
            assert np.array_equal(ids == 0, np.isin(label, (0, 255)))
            semantic = np.asarray(Image.open(root / f"semantic_{split}" / annotation["file_name"]))
            assert np.array_equal(semantic, label)
    assert num == NUM


def test_supervision_reads_yolo_with_as_many_objects(exported: Path) -> None:
    num_images, num_objects = 0, 0
    for split in ("train", "val", "test"):
        dataset = supervision.DetectionDataset.from_yolo(
            images_directory_path=str(exported / "yolo/images" / split),
            annotations_directory_path=str(exported / "yolo/labels" / split),
            data_yaml_path=str(exported / "yolo/data.yaml"),
            force_masks=True,
        )
        assert dataset.classes == list(NAMES)
        for path, image, detections in dataset:
            num_images += 1
            expected = regions(labels()[Path(path).stem])
            assert image.shape == (SIZE, SIZE, 3)
            assert sorted(detections.class_id.tolist()) == sorted(value - 1 for value, _ in expected)
            num_objects += len(detections)
            for mask, label in zip(detections.mask, detections.class_id, strict=True):
                # supervision draws the outline too, so masks are a pixel larger
                best = max((region for value, region in expected if value - 1 == label), key=lambda r: iou(r, mask))
                assert (best & ~mask).sum() == 0
                assert not (mask & ~ndimage.binary_dilation(best, np.ones((3, 3)), iterations=2)).any()
    assert (num_images, num_objects) == (NUM, sum(len(regions(label)) for label in labels().values()))


def test_yolo_polygons_cover_their_objects_by_the_even_odd_rule(exported: Path) -> None:
    from matplotlib.path import Path as Outline

    centres = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1).reshape(-1, 2) + 0.5
    num = 0
    for file in sorted((exported / "yolo/labels").rglob("*.txt")):
        expected = regions(labels()[file.stem])
        for line, (value, mask) in zip(file.read_text().splitlines(), expected, strict=True):
            category, *numbers = line.split()
            points = np.array(numbers, dtype=float).reshape(-1, 2)
            assert points.min() >= 0 and points.max() <= 1
            assert int(category) == value - 1
            x, y = (points * SIZE).T
            area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
            assert area == pytest.approx(mask.sum(), abs=0.1), "holes and bridges count as they should"
            drawn = Outline(points * SIZE).contains_points(centres).reshape(SIZE, SIZE)
            assert iou(drawn, mask) >= 0.97
            num += 1
    assert num == sum(len(regions(label)) for label in labels().values())


def test_datasets_loads_the_folder_offline(exported: Path, tmp_path: Path) -> None:
    loaded = datasets.load_dataset(str(exported / "hf"), cache_dir=str(tmp_path))
    assert set(loaded) == {"train", "val", "test"}
    assert sum(len(split) for split in loaded.values()) == NUM
    for split in loaded.values():
        assert split.features["categories"].feature.names == ["background", *NAMES]
        for row in split:
            number = int(row["id"].removeprefix("synthesis-"))
            label = labels()[row["id"]]
            assert np.array_equal(np.asarray(row["label"]), label)
            assert row["image"].size == (SIZE, SIZE)
            assert row["prompt"] == f"a photograph of scene {number // 3}"
            assert (row["seed"], row["quality"]) == (1000 + number, number % 10 / 10)
            assert sorted(row["categories"]) == sorted(set(np.unique(label).tolist()) - {0, 255})


def test_a_single_parquet_file_knows_its_features(exported: Path, tmp_path: Path) -> None:
    file = next((exported / "hf/data").glob("train-*.parquet"))
    loaded = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path))
    assert loaded.features["categories"].feature.names == ["background", *NAMES]
    assert loaded[0]["image"].size == (SIZE, SIZE)


def test_png_folders_hold_images_without_loss(exported: Path) -> None:
    found = sorted((exported / "png/masks").rglob("*.png"))
    assert [path.stem for path in sorted(found, key=lambda path: path.stem)] == keys(range(NUM))
    for path in found:
        assert np.array_equal(np.asarray(Image.open(path)), labels()[path.stem])
        image = np.asarray(Image.open(exported / "png/images" / path.relative_to(exported / "png/masks")))
        number = int(path.stem.removeprefix("synthesis-"))
        expected = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        assert np.array_equal(image, expected)
    rows = list(csv.DictReader((exported / "png/categories.csv").read_text().splitlines()))
    assert [(row["label"], row["name"]) for row in rows] == [
        ("0", "background"), ("1", "cat"), ("2", "dog"), ("4", "bus"), ("255", "ignored"),
    ]  # fmt: skip
    assert rows[1]["colour"] == "#800000"


@pytest.mark.parametrize("name", list(FORMATS))
def test_the_example_of_the_card_runs(exported: Path, name: str, tmp_path: Path) -> None:
    card = (exported / name / "README.md").read_text()
    [example] = [part.partition("```")[0] for part in card.split("```python\n")[1:]]
    assert "{" not in example.replace('{int(row["label"])', "")
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", example], cwd=exported / name, env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", list(FORMATS))
def test_the_card_counts_images_and_names_their_origin(exported: Path, name: str) -> None:
    card = (exported / name / "README.md").read_text()
    num = {value: sum(value in label for label in labels().values()) for value in (1, 2, 4)}
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| ") and "category" not in line]
    counted = {row[0].strip("| "): sum(int(cell.strip("| ")) for cell in row[3:]) for row in rows[1:]}
    assert counted == {"1": num[1], "2": num[2], "4": num[4]}
    for said in ("generator: 0123abcd", "grounding module: 4567efab", "sampler: dpmsolver++", "1000 to 1029", "2.15.0"):
        assert said in card
    assert "Licence" in card and "checkpoint" in card
    assert ("---\ntask_categories" in card) == (name == "hf")
