"""`diffground export` and `diffground export-onnx` as a user types them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import diffground
from diffground.data.labelled import image_sample
from diffground.data.shards import write_shard
from diffground.vocabulary import load_vocabulary
from tests.unit.exchange.example_shards import NAMES, drawn_label, write_shards

ROOT = Path(__file__).parents[3]


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    command = [sys.executable, "-m", "diffground", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_export_takes_the_names_next_to_the_shards(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", num=9)
    (shards / "categories.json").write_text(json.dumps(NAMES))
    ran = call(tmp_path, "export", "shards", "--format", "voc", "--format", "png", "-o", "out", "--min-quality", "0.3")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "out: voc, png; 6 images (train 6)",
        "left out: 3 below --min-quality 0.3 (of 9 samples)",
    ]
    assert "export: 6/6" in ran.stderr
    assert len(list((tmp_path / "out/voc/VOCdevkit/VOC2012/JPEGImages").iterdir())) == 6
    assert len((tmp_path / "out/png/categories.csv").read_text().splitlines()) == 1 + 1 + len(NAMES) + 1


def test_export_takes_the_names_of_params_where_there_are_none(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    names = load_vocabulary("pascal").categories
    label = drawn_label(3) * 5  # 5, 10 and 20
    image = np.zeros((*label.shape, 3), dtype=np.uint8)
    sample = image_sample(id="a", prompt="p", categories=names[4:5], settings={}, image=image, label=label)
    write_shard(tmp_path / "shards/000000.tar", [sample])
    ran = call(tmp_path, "export", "shards", "--format", "coco", "-o", "out")
    assert ran.returncode == 0, ran.stderr
    annotations = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [category["name"] for category in annotations["categories"]] == list(names)
    assert {annotation["category_id"] for annotation in annotations["annotations"]} == {5, 10, 20}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "nowhere", "--format", "voc", "-o", "out"), "error: nowhere: no such folder of shards; run `dvc"),
        (("export", "shards", "--format", "x", "-o", "out"), "error: --format must be one of voc, coco, yolo, hf, png"),
        (("export", "bare", "--format", "voc", "-o", "out"), "error: params.yaml: no such file; run"),
        (("export-onnx", "nowhere", "x.onnx"), "error: nowhere: no segmenter (config.json is missing)"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    shards = write_shards(tmp_path / "shards", num=3)
    (shards / "categories.json").write_text(json.dumps(NAMES))
    write_shards(tmp_path / "bare", num=3)
    ran = call(tmp_path, *arguments)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1), ran.stderr
    assert ran.stderr.startswith(message)


def test_export_onnx_writes_the_shipped_segmenter(tmp_path: Path) -> None:
    ran = call(tmp_path, "export-onnx", str(ROOT / "models/mini/segmenter"), "segmenter.onnx")
    assert (ran.returncode, ran.stderr) == (0, "")
    size = (tmp_path / "segmenter.onnx").stat().st_size
    assert ran.stdout == f"segmenter.onnx: written, {size / 2**20:.1f} MiB\n"


def test_the_help_tells_data_from_weights(tmp_path: Path) -> None:
    text = " ".join(call(tmp_path, "--help").stdout.split())
    assert (
        "write synthetic images and masks as a data set for other tools; export-onnx and export-maskformer write"
        in text
    )
    assert "write a segmenter's weights for the official MaskFormer; `export` writes data sets" in text
    assert "write a segmenter's weights as one ONNX file, for any batch size; `export` writes data sets" in text
