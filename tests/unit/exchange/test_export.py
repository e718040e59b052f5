"""What is kept, resumption, and refusals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from diffground.data.labelled import LabelledSample, image_sample, oracle_sample
from diffground.data.review import COLUMNS, look_of, write_review
from diffground.data.shards import Sample, encode_png, read_samples, read_shard, write_shard
from diffground.errors import UserError
from diffground.exchange.export import FORMATS, ExportOptions, export_shards
from diffground.exchange.samples import Categories, read_categories
from tests.unit.exchange.example_shards import (
    CATEGORIES,
    NAMES,
    drawn_label,
    drawn_sample,
    files_of,
    keys,
    write_shards,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def export(shards: Path, out: Path, *formats: str, categories: Categories = CATEGORIES, **options: Any) -> list[str]:
    return export_shards(
        shards, out, categories=categories, options=ExportOptions(formats=formats or ("png",), **options)
    )


def written(out: Path) -> dict[str, list[str]]:
    """Split -> ids of the exported label maps of format png."""
    return {folder.name: sorted(path.stem for path in folder.iterdir()) for folder in sorted((out / "masks").iterdir())}


def prompts_of(shards: Path) -> dict[str, str]:
    return {sample.key: LabelledSample(sample).prompt for sample in read_samples(shards)}


def test_no_prompt_is_in_two_splits(shards: Path, tmp_path: Path) -> None:
    export(shards, tmp_path / "out", split="0.5,0.25,0.25")
    splits = written(tmp_path / "out")
    assert set(splits) == {"train", "val", "test"}
    assert sorted(key for found in splits.values() for key in found) == keys(range(30))
    prompts = {split: {prompts_of(shards)[key] for key in found} for split, found in splits.items()}
    assert sum(map(len, prompts.values())) == len(set.union(*prompts.values())) == 10


def test_a_split_that_stays_empty_is_reported(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", num=3)
    lines = export(shards, tmp_path / "out", split="0.5,0.25,0.25")
    assert len(written(tmp_path / "out")) == 1
    assert re.fullmatch(r"no image in \w+, \w+: there are too few different prompts; .*", lines[1])


def test_samples_below_the_quality_are_left_out_and_counted(shards: Path, tmp_path: Path) -> None:
    lines = export(shards, tmp_path / "out", min_quality=0.5)
    assert written(tmp_path / "out")["train"] == [key for i, key in enumerate(keys(range(30))) if i % 10 >= 5]
    assert lines[1] == "left out: 15 below --min-quality 0.5 (of 30 samples)"
    assert "15 with a quality below 0.5" in (tmp_path / "out/README.md").read_text()


def test_rejected_samples_are_left_out(shards: Path, tmp_path: Path) -> None:
    samples = {sample.key: sample for sample in read_samples(shards)}
    rows = []
    for number, verdict in ((3, "rejected"), (4, "accepted"), (5, "rejected")):
        key = keys([number])[0]
        sample = LabelledSample(samples[key])
        masks = {name: drawn_label(number) == NAMES.index(name) + 1 for name in sample.categories}
        seen = LabelledSample(sample.sample, oracle_sample(key, categories=sample.categories, masks=masks))
        rows.append((key, sample.prompt, look_of(seen) if number != 5 else "", verdict, ""))
    write_review(tmp_path / "review.csv", rows)
    lines = export(shards, tmp_path / "out", review=tmp_path / "review.csv")
    assert set(keys(range(30))) - set(written(tmp_path / "out")["train"]) == set(keys([3, 5]))
    assert lines[1] == "left out: 2 rejected in --review (of 30 samples)"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("synthesis-000003", "a photograph of scene 1", "0" * 27, "rejected", ""), "another image or other masks"),
        (("synthesis-000003", "another", "", "rejected", ""), "was reviewed with the prompt 'another'"),
        (("synthesis-000099", "a photograph of scene 1", "", "rejected", ""), "line 2: 'synthesis-000099' is not one"),
    ],
    ids=["image", "prompt", "id"],
)
def test_a_row_of_a_review_that_fits_no_sample_is_refused(
    shards: Path, tmp_path: Path, row: tuple[str, ...], problem: str
) -> None:
    assert len(row) == len(COLUMNS)
    write_review(tmp_path / "review.csv", [row])
    with pytest.raises(UserError, match=problem):
        export(shards, tmp_path / "out", review=tmp_path / "review.csv")


def test_a_category_has_at_most_so_many_images_and_fewer_are_reported(shards: Path, tmp_path: Path) -> None:
    lines = export(shards, tmp_path / "out", per_category=9)
    kept = written(tmp_path / "out")["train"]
    named = Counter(
        name for sample in read_samples(shards) if sample.key in kept for name in LabelledSample(sample).categories
    )
    assert named["cat"] == 9  # every sample has one
    assert max(named.values()) <= 9
    assert lines[1] == "left out: 21 over --per-category 9 (of 30 samples)"
    assert lines[2] == f"fewer than 9 images: dog {named['dog']}, bus {named['bus']}"
    export(shards, tmp_path / "again", per_category=9)
    export(shards, tmp_path / "other", per_category=9, seed=1)
    assert written(tmp_path / "again")["train"] == kept
    assert written(tmp_path / "other")["train"] != kept


def test_images_without_objects_and_named_categories_without_pixels_are_counted(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    label = np.zeros((8, 8), dtype=np.uint8)
    sample = image_sample(id="a", prompt="a dog", categories=["dog"], settings={}, image=image, label=label)
    write_shard(tmp_path / "shards/000000.tar", [sample])
    lines = export(tmp_path / "shards", tmp_path / "out", "voc", "coco", "yolo", "hf", "png")
    assert lines[1] == "images without an object: 1; named categories without a pixel in their image: 1"
    assert (tmp_path / "out/yolo/labels/train/a.txt").read_text() == ""


def test_ignored_pixels_that_yolo_cannot_say_are_reported(shards: Path, tmp_path: Path) -> None:
    assert export(shards, tmp_path / "out", "yolo")[-1] == (
        "images with ignored pixels (255), which are background in yolo: 6"
    )


KILLED = """
import os, signal, sys
from pathlib import Path
from diffground.exchange import folder
from diffground.exchange.export import ExportOptions, export_shards
from example_shards import CATEGORIES

whole, num = folder.atomic_file, 0

def kill_in_the_middle(path, **how):
    global num
    num += 1
    if num == int(sys.argv[4]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"{path.name}.{os.getpid()}.partial").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(path, **how)

folder.atomic_file = kill_in_the_middle
options = ExportOptions(formats=tuple(sys.argv[3].split(",")), split="0.6,0.2,0.2")
export_shards(Path(sys.argv[1]), Path(sys.argv[2]), categories=CATEGORIES, options=options)
"""


def test_a_killed_export_resumes_and_gives_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    formats = list(FORMATS)
    export(shards, tmp_path / "whole", *formats, split="0.6,0.2,0.2")
    expected = {name: content for name, content in files_of(tmp_path / "whole").items() if "summary" not in name}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(Path(__file__).parent)])}
    out, times = tmp_path / "out", dict[Path, int]()
    for place in (1, 20, 60, 7):
        command = [sys.executable, "-c", KILLED, str(shards), str(out), ",".join(formats), str(place)]
        ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == -signal.SIGKILL, ran.stderr
        assert len(list(out.rglob("*.partial"))) == 1
        finished = [path for path in out.rglob("*") if path.is_file() and path.suffix in (".png", ".jpg", ".parquet")]
        times |= {path: path.stat().st_mtime_ns for path in finished}
    assert len(times) > 60
    export(shards, out, *formats, split="0.6,0.2,0.2")
    assert {name: content for name, content in files_of(out).items() if "summary" not in name} == expected
    assert {path: path.stat().st_mtime_ns for path in times} == times, "finished files are not written again"


def test_a_second_export_writes_nothing_and_repeats_the_summary(shards: Path, tmp_path: Path) -> None:
    first = export(shards, tmp_path / "out", min_quality=0.5)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert export(shards, tmp_path / "out", min_quality=0.5) == [
        f"{tmp_path / 'out'}: was complete, nothing was written",
        *first,
    ]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == times


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"split": "0.5,0.5"}, "--split 1, now it is 0.5,0.5"),
        ({"seed": 1}, "--seed 0, now it is 1"),
        ({"min_quality": 0.1}, "--min-quality null, now it is 0.1"),
        ({"per_category": 5}, "--per-category null, now it is 5"),
        ({"categories": Categories(NAMES, NAMES)}, "used categories"),
        ({"categories": Categories(("cat", "dog", "ox", "bus"), ("cat", "dog", "bus"))}, "categories"),
    ],
    ids=["split", "seed", "quality", "per_category", "used", "names"],
)
def test_other_settings_in_the_same_folder_are_refused(
    shards: Path, tmp_path: Path, options: dict[str, Any], setting: str
) -> None:
    export(shards, tmp_path / "out")
    with pytest.raises(UserError, match=f"was begun with {re.escape(setting)}"):
        export(shards, tmp_path / "out", **options)


def test_other_shards_and_other_formats_in_the_same_folder_are_refused(shards: Path, tmp_path: Path) -> None:
    export(shards, tmp_path / "out")
    with pytest.raises(UserError, match="was begun with --format png, now it is voc"):
        export(shards, tmp_path / "out", "voc")
    with pytest.raises(UserError, match="was begun with samples "):
        export(write_shards(tmp_path / "more", num=31), tmp_path / "out")


def bad_label(shards: Path) -> None:
    sample = drawn_sample(0)
    label = np.full((48, 48), 3, dtype=np.uint8)
    meta = LabelledSample(sample)
    write_shard(
        shards / "000000.tar",
        [image_sample(id="x", prompt="p", categories=["cat"], settings={}, image=meta.image(), label=label)],
    )


def other_size(shards: Path) -> None:
    sample = drawn_sample(0)
    members = {**sample.members, "image.png": encode_png(np.zeros((9, 9, 3), dtype=np.uint8))}
    write_shard(shards / "000000.tar", [Sample("x", members)])


def cut(shards: Path) -> None:
    path = shards / "000001.tar"
    path.write_bytes(path.read_bytes()[:40_000])


def broken_image(shards: Path) -> None:
    sample = drawn_sample(0)
    write_shard(shards / "000000.tar", [Sample("x", {**sample.members, "image.png": b"no image"})])


def broken_meta(shards: Path) -> None:
    write_shard(shards / "000000.tar", [Sample("x", {**drawn_sample(0).members, "meta.json": b"[1"})])


def bad_meta(shards: Path) -> None:
    meta = json.dumps({"prompt": "p", "categories": ["cat"], "quality": 1.5}).encode()
    write_shard(shards / "000000.tar", [Sample("x", {**drawn_sample(0).members, "meta.json": meta})])


def no_label(shards: Path) -> None:
    members = {name: content for name, content in drawn_sample(0).members.items() if name != "label.png"}
    write_shard(shards / "000000.tar", [Sample("x", members)])


def twice(shards: Path) -> None:
    write_shard(shards / "000009.tar", read_shard(shards / "000000.tar"))


def unknown_category(shards: Path) -> None:
    sample = LabelledSample(drawn_sample(0))
    write_shard(
        shards / "000000.tar",
        [image_sample(id="x", prompt="p", categories=["cow"], settings={}, image=sample.image(), label=sample.label())],
    )


def empty(shards: Path) -> None:
    for path in shards.glob("*.tar"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty, r"shards: holds no shard \(\*\.tar\); run `dvc repro`"),
        (cut, r"000001\.tar: truncated at member \d+; delete the file"),
        (broken_image, r"000000\.tar: sample 'x', member 'image\.png' holds an image that cannot be decoded"),
        (broken_meta, r"000000\.tar: sample 'x', member 'meta\.json' is no JSON object"),
        (bad_meta, r"000000\.tar: sample 'x', member 'meta\.json': 'quality' cannot be 1\.5"),
        (no_label, r"000000\.tar: sample 'x' has no member 'label\.png'"),
        (other_size, r"sample 'x', member 'label\.png' has shape \(48, 48\), its image \(9, 9\)"),
        (bad_label, r"has label 3, but the vocabulary uses the labels 1\.\.2, 4; set the vocabulary"),
        (unknown_category, r"sample 'x' is of category 'cow', which is not one of the 3 of the vocabulary"),
        (twice, r"000009\.tar: sample 'synthesis-000000': another shard has a sample of this name"),
    ],
)
def test_bad_shards_are_one_line(tmp_path: Path, spoil: Any, message: str) -> None:
    shards = write_shards(tmp_path / "shards", num=16)
    spoil(shards)
    with pytest.raises(UserError, match=message) as raised:
        export(shards, tmp_path / "out", "png", "coco")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("formats", "options", "message"),
    [
        (("pascal",), {}, "--format must be one of voc, coco, yolo, hf, png, got 'pascal'"),
        (("voc", "voc"), {}, "--format names voc, voc; name each once"),
        (("voc",), {"split": "0.5"}, "--split must be 1 to 3 shares"),
        (("voc",), {"min_quality": 1.5}, "--min-quality must be in 0..1, got 1.5"),
        (("voc",), {"min_quality": float("nan")}, "--min-quality must be in 0..1, got nan"),
        (("voc",), {"per_category": 0}, "--per-category must be at least 1, got 0"),
        (("voc",), {"polygons": True}, "--polygons is for --format coco"),
        (("voc",), {"review": Path("nowhere.csv")}, "--review nowhere.csv: no such file"),
        (("voc",), {"min_quality": 1.0}, "no sample is left to export; 30 below --min-quality 1.0 (of 30 samples)"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(
    shards: Path, tmp_path: Path, formats: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        export(shards, tmp_path / "out", *formats, **options)
    assert not (tmp_path / "out").exists()


def test_quality_that_the_shards_lack_says_how_to_get_it(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", num=3, quality=None)
    with pytest.raises(UserError, match=r"has no 'quality' in meta\.json, which --min-quality needs; run `dvc repro"):
        export(shards, tmp_path / "out", min_quality=0.5)


def test_foreign_and_unwritable_folders_are_refused(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="mine: holds files that are not of an export; name an empty or a new folder"):
        export(shards, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    for path in (tmp_path / "mine/thesis.txt", tmp_path / "mine/thesis.txt/below"):
        with pytest.raises(UserError, match="cannot be written"):
            export(shards, path)
    with pytest.raises(UserError, match="must lie outside of the shards' folder"):
        export(shards, shards / "out")


def test_a_missing_pyarrow_names_the_extra(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"--format hf needs 'pyarrow'; run pip install 'diffground\[hf\]'"):
        export(shards, tmp_path / "out", "hf")


def test_categories_come_from_the_file_next_to_the_shards(tmp_path: Path) -> None:
    assert read_categories(tmp_path) is None
    (tmp_path / "categories.json").write_text(json.dumps(["cat", "dög"]), encoding="utf-8")
    assert read_categories(tmp_path) == Categories(("cat", "dög"), ("cat", "dög"))
    for text in ("{", "[]", '["cat", "cat"]', '[1, "cat"]', '{"cat": 1}', '[""]'):
        (tmp_path / "categories.json").write_text(text)
        with pytest.raises(UserError, match=r"categories\.json: must be a JSON list of 1 to 254 different names"):
            read_categories(tmp_path)


def test_a_parquet_file_is_written_in_row_groups(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", num=150, per_shard=150, size=16)
    export(shards, tmp_path / "out", "hf")
    [path] = (tmp_path / "out/data").iterdir()
    assert [pyarrow.parquet.ParquetFile(path).metadata.row_group(i).num_rows for i in range(3)] == [64, 64, 22]


MEMORY = """
import resource, sys
from pathlib import Path
from diffground.exchange.export import FORMATS, ExportOptions, export_shards
from example_shards import CATEGORIES, write_shards

work, num = Path(sys.argv[1]), int(sys.argv[2])
write_shards(work / "shards", num=num, per_shard=100, size=32)
options = ExportOptions(formats=("coco", "hf"), split="0.8,0.2", per_category=num)
export_shards(work / "shards", work / "out", categories=CATEGORIES, options=options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(Path(__file__).parent)])}
    peaks_mib = []
    for num in (300, 3000):
        command = [sys.executable, "-c", MEMORY, str(tmp_path / str(num)), str(num)]
        ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        peaks_mib.append(int(ran.stdout) / 1024)
    # images, label maps and annotations of 2,700 further samples are 18 MiB
    assert peaks_mib[1] - peaks_mib[0] < 8, peaks_mib
