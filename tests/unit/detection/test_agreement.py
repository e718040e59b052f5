"""How far two detectors agree: counts and mean IoU, worked by hand on 2 x 4 images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks._stages import scratch_folder
from benchmarks.detectron2_detector import Agreement, as_table, compare
from diffground.data.labelled import image_sample, oracle_sample
from diffground.data.shards import write_shard
from diffground.errors import UserError

NAMED = {"a": ["dog", "cat"], "b": ["dog"], "c": ["cat"]}


def mask(rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows.split("/")])


def write_masks(folder: Path, found: dict[str, dict[str, str]]) -> Path:
    samples = [
        oracle_sample(key, categories=NAMED[key], masks={name: mask(rows) for name, rows in masks.items()})
        for key, masks in found.items()
    ]
    write_shard(folder / "000000.tar", samples)
    return folder


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    image = np.zeros((2, 4, 3), dtype=np.uint8)
    samples = [
        image_sample(id=key, prompt="", categories=named, settings={}, image=image) for key, named in NAMED.items()
    ]
    write_shard(tmp_path / "generated/000000.tar", samples)
    return tmp_path / "generated"


def test_iou_counts_where_both_found_the_category(generated: Path, tmp_path: Path) -> None:
    ours = write_masks(
        tmp_path / "ours", {"a": {"dog": "##../##..", "cat": "...#/...#"}, "b": {"dog": "#.../...."}, "c": {}}
    )
    theirs = write_masks(
        tmp_path / "theirs", {"a": {"dog": "###./###."}, "b": {"dog": "#.../...."}, "c": {"cat": "#.../...."}}
    )
    agreement = compare(generated, ours=ours, theirs=theirs)
    assert (agreement.num_pairs, agreement.num_ours, agreement.num_theirs) == (4, 3, 3)
    assert agreement.ious == pytest.approx([4 / 6, 1.0])
    assert agreement.row("test") == ("test", 4, 3, 3, 2, pytest.approx(83.3))


def test_nothing_found_by_both_has_no_mean() -> None:
    table = as_table({"test": Agreement(num_pairs=2, num_ours=1)})
    assert table.rows == (("test", 2, 1, 0, 0, None),)


def test_masks_of_other_images_are_refused(generated: Path, tmp_path: Path) -> None:
    ours = write_masks(tmp_path / "ours", {"a": {}, "b": {}, "c": {}})
    theirs = write_masks(tmp_path / "theirs", {"a": {}, "b": {}})
    with pytest.raises(UserError, match="its samples are not those of"):
        compare(generated, ours=ours, theirs=theirs)


def test_a_scratch_folder_needs_its_inputs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data/nowhere: missing; run `dvc repro` or `dvc pull` first"):
        scratch_folder(tmp_path, inputs=[Path("data/nowhere")], changes={})
