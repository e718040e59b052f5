"""Stage scripts as DVC starts them: on bad input one line, exit code 2, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import diffground
from diffground.data.shards import list_shards, read_samples
from diffground.data.voc import VocDataset, coappearing_labels
from diffground.prompts import read_prompts, write_prompts
from diffground.reproduction.composition import compose_params
from diffground.reproduction.metrics import read_metrics
from diffground.reproduction.smoke import build_components
from diffground.segmentation.sources import ShardSource
from tests.unit.data.coco_folder import write_split
from tests.warm_python import run_script

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clone(tmp_path):
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    text = compose_params("smoke", conf=ROOT / "conf", overrides=["tracking.enabled=false", "split=pascal_split1"])
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path


def call(folder, stage):
    return run_script(folder / "stages" / f"{stage}.py", cwd=folder)


def call_anew(folder, stage, *, limit=""):
    """Started as DVC does, without a module imported before: for stages that start processes, and for limits."""
    env = {**os.environ, "PYTHONPATH": str(Path(diffground.__file__).parents[1])}
    command = f"{limit} exec {sys.executable} stages/{stage}.py"
    return subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, check=False)


def change(folder, **sections):
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section, values in sections.items():
        params[section].update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def assert_one_line(result, expected):
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert expected in result.stderr


def test_sample_prompts_writes_the_three_sets(clone):
    assert call(clone, "sample_prompts").returncode == 0
    sizes = {name: len(read_prompts(clone / f"data/prompts/{name}.jsonl")) for name in ("train", "test", "synthesis")}
    prompts = yaml.safe_load((clone / "params.yaml").read_text())["prompts"]
    assert sizes["train"] == prompts["num_train_one"] + prompts["num_train_two"]
    assert sizes["test"] == 20 * prompts["test_per_category"] + 142 * prompts["test_per_pair"]


@pytest.mark.parametrize(("table", "num", "paper"), [("pascal", 20, 142), ("sticker_coco", 64, None)])
def test_pairs_of_the_real_images_are_next_to_the_papers(clone, table, num, paper):
    change(clone, data={"num_train": 3, "num_val": 9}, vocabulary={"file": table, "pairs": "data_val"})
    assert call(clone, "prepare_data").returncode == 0
    result = call(clone, "sample_prompts")
    train, val = (VocDataset(clone / "data/real", name, num_categories=num) for name in ("train", "val"))
    pairs = coappearing_labels(val)
    assert pairs and pairs != coappearing_labels(train)
    counted = f"(paper, all {num} categories: {paper or 'not counted'})"
    assert result.stdout.endswith(f"{len(pairs)} pairs of categories share an image of list 'val' {counted}\n")
    metrics = json.loads((clone / "reports/metrics/sample_prompts.json").read_text())
    assert (metrics["num_pairs"], metrics["paper_num_pairs"]) == (len(pairs), paper)


def test_pairs_of_coco_images_are_next_to_the_papers(clone):
    write_split(clone / "coco", "train2017", 20, seed=0)
    write_split(clone / "coco", "val2017", 6, seed=1)
    change(
        clone,
        data={"source": "coco", "root": "coco", "num_train": 0, "num_val": 0},
        vocabulary={"file": "coco", "pairs": "data_val", "unseen": ["bus"]},
    )
    prepared = call(clone, "prepare_data")
    # a person and another category in each image
    for name, num in (("train", 20), ("val", 6)):
        line = f"list '{name}': {num} images, 0 of them without any category; {num} pairs of categories share an image"
        assert line in prepared.stdout
    result = call(clone, "sample_prompts")
    assert result.returncode == 0, result.stderr
    told = "6 pairs of categories share an image of list 'val' (paper, all 79 categories: 1559)\n"
    assert result.stdout.endswith(told)
    metrics = json.loads((clone / "reports/metrics/sample_prompts.json").read_text())
    assert (metrics["num_pairs"], metrics["paper_num_pairs"]) == (6, 1559)


def test_contexts_change_the_synthesis_prompts_alone(clone):
    def prompts():
        assert call(clone, "sample_prompts").returncode == 0
        return {path.name: path.read_text() for path in (clone / "data/prompts").iterdir()}

    build_components(clone / "models/smoke")
    plain = prompts()
    assert plain.pop("contexts.yaml") == "{}\n"
    (clone / "bank.yaml").write_text("any: [in fog, at sea]\n")
    change(clone, prompts={"contexts": "bank.yaml", "context_frac": 0.5})
    longer = prompts()
    assert yaml.safe_load(longer.pop("contexts.yaml")) == {"any": ["in fog", "at sea"]}
    assert [name for name in plain if plain[name] != longer[name]] == ["synthesis.jsonl"]
    num = len(longer["synthesis.jsonl"].splitlines())
    metrics = json.loads((clone / "reports/metrics/sample_prompts.json").read_text())
    assert metrics["synthesis"]["num_prompts_by_source"] == {"scene": num // 2, "template": num - num // 2}
    change(clone, prompts={"contexts": "mine.yaml"})
    assert_one_line(call(clone, "sample_prompts"), "prompts.contexts: no such file 'mine.yaml'")


def test_prepare_data_says_what_is_missing_of_coco(clone):
    change(clone, data={"source": "coco", "root": "data/coco2017"}, vocabulary={"file": "coco", "pairs": "data_val"})
    change(clone, vocabulary={"unseen": ["cat"]})
    assert_one_line(call(clone, "prepare_data"), "data/coco2017: no such COCO folder; set data.root, or run")


def test_prepare_data_composes_the_mini_world(clone):
    change(clone, data={"num_train": 3, "num_val": 2})
    assert call(clone, "prepare_data").returncode == 0
    assert [len(VocDataset(clone / "data/real", name)) for name in ("train", "val")] == [3, 2]


def test_prepare_data_copies_a_devkit(clone):
    change(clone, data={"num_train": 3, "num_val": 2})
    assert call(clone, "prepare_data").returncode == 0
    (clone / "data/real").rename(clone / "devkit")
    change(clone, data={"source": "voc", "root": "devkit"})
    assert call(clone, "prepare_data").returncode == 0
    assert len(VocDataset(clone / "data/real", "val")) == 2


def test_prepare_data_copies_a_plain_folder(clone):
    (clone / "mine/images").mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(clone / "mine/images/my dog.jpeg")
    change(clone, data={"source": "folder", "root": "mine"})
    result = call(clone, "prepare_data")
    assert result.returncode == 0
    assert "warning: mine: 1 of 1 images of list 'val' have no mask" in result.stderr
    assert VocDataset(clone / "data/real", "val").ids == ["my dog"]
    (clone / "mine/masks").mkdir()
    Image.new("L", (8, 6), 255).save(clone / "mine/masks/my dog.png")
    refused = call(clone, "prepare_data")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(
        "error: mine/masks/my dog.png: holds only 0 and 255, and 255 means"
    )
    change(clone, data={"binary_label": "dog"})
    assert call(clone, "prepare_data").returncode == 0
    assert (VocDataset(clone / "data/real", "val").label(0) == 12).all()
    change(clone, data={"binary_label": "hound"})
    assert_one_line(call(clone, "prepare_data"), "data.binary_label must be 'ignored' or one of the 20 categories")


def test_a_missing_devkit(clone):
    change(clone, data={"source": "voc", "root": "data/VOCdevkit/VOC2012"})
    assert_one_line(call(clone, "prepare_data"), "data/VOCdevkit/VOC2012: no such data folder; set data.root")


def test_a_misspelt_parameter(clone):
    change(clone, prompts={"num_train_on": 3})
    assert_one_line(call(clone, "sample_prompts"), "did you mean 'prompts.num_train_one'? (params.yaml)")


def test_a_mistyped_parameter(clone):
    change(clone, prompts={"num_train_one": "many"})
    assert_one_line(call(clone, "sample_prompts"), "prompts.num_train_one must be a whole number, got text 'many'")


def test_a_negative_count(clone):
    change(clone, prompts={"num_train_one": -1})
    assert_one_line(call(clone, "sample_prompts"), "prompts.num_train_one must not be negative, got -1")


def test_an_unknown_category(clone):
    change(clone, vocabulary={"unseen": ["dgo"]})
    assert_one_line(call(clone, "sample_prompts"), "'dgo' is not one of the 20 categories; closest: dog.")


def test_a_category_both_seen_and_unseen(clone):
    change(clone, vocabulary={"unseen": ["dog"], "seen": ["dog", "cat"]})
    assert_one_line(call(clone, "sample_prompts"), "'dog' is both seen and unseen")


def test_a_missing_checkpoint(clone):
    assert call(clone, "sample_prompts").returncode == 0
    assert_one_line(call(clone, "generate"), "models/smoke/diffusion")


def test_real_images_are_inverted_as_many_as_asked_for_and_dropped_again(clone):
    build_components(clone / "models/smoke")
    change(clone, data={"num_train": 6, "num_val": 4}, inversion={"num_train": 3, "num_val": 99})
    assert call(clone, "prepare_data").returncode == 0
    assert call(clone, "invert_real").returncode == 0
    metrics = json.loads((clone / "reports/metrics/invert_real.json").read_text())
    nums = {name: metrics[name]["num_images"] for name in ("train", "val")}
    assert nums["train"] == 3
    assert nums["val"] == 4 - metrics["val"]["num_skipped"], "all there are"
    for folder in ("inverted", "inverted_oracle"):
        assert {n: len(list(read_samples(clone / "data" / folder / n))) for n in nums} == nums
    change(clone, inversion={"num_train": 0, "num_val": 0}, grounding={"training_data": "sim"})
    assert call(clone, "invert_real").returncode == 0
    left = sorted(path.relative_to(clone / "data").as_posix() for path in clone.glob("data/inverted*/*/*"))
    assert left == [
        f"{folder}/{name}/fingerprint.json" for folder in ("inverted", "inverted_oracle") for name in ("train", "val")
    ]


def test_text2mask_labels_real_images_in_any_batches_and_drops_them_when_none_are_wanted(clone):
    build_components(clone / "models/smoke")
    change(clone, data={"num_train": 4, "num_val": 1}, text2mask={"threshold_from": "fixed", "threshold": 0.6})
    assert call(clone, "prepare_data").returncode == 0
    sources = []
    for batch_size in (4, 1):
        shutil.rmtree(clone / "data/pseudo", ignore_errors=True)
        change(clone, text2mask={"batch_size": batch_size})
        assert call(clone, "text2mask").returncode == 0
        sources.append(ShardSource(clone / "data/pseudo"))
    assert [len(source) for source in sources] == [4, 4]
    for (image, label), (same_image, same_label) in zip(*sources, strict=True):
        assert np.array_equal(image, same_image)
        assert len(np.unique(label)) > 1
        assert (label != same_label).mean() < 0.005  # a pixel on the threshold may go either way
    metrics = read_metrics("text2mask", folder=clone / "reports/metrics")
    assert (metrics["num_images"], metrics["threshold"]) == (4, 0.6)
    change(clone, text2mask={"num_images": 0}, segmenter={"training_sets": ["real_all"]})
    assert call(clone, "text2mask").returncode == 0
    assert [path.name for path in (clone / "data/pseudo").iterdir()] == ["fingerprint.json"]
    metrics = read_metrics("text2mask", folder=clone / "reports/metrics")
    assert (metrics["num_images"], metrics["threshold"]) == (0, None)


def test_a_full_disk_leaves_the_old_prompts(clone):
    assert call(clone, "sample_prompts").returncode == 0
    before = (clone / "data/prompts/train.jsonl").read_bytes()
    change(clone, prompts={"num_train_one": 50})
    # ulimit -f 4: no file beyond 4 KiB; the trap turns the signal into an error of the write
    assert_one_line(call_anew(clone, "sample_prompts", limit="trap '' XFSZ; ulimit -f 4;"), "no space left to write")
    assert (clone / "data/prompts/train.jsonl").read_bytes() == before


def test_a_full_disk_leaves_no_half_composed_world(clone):
    assert_one_line(call_anew(clone, "prepare_data", limit="trap '' XFSZ; ulimit -f 1;"), "no space left to write")
    assert not list((clone / "data").glob("*"))


def test_two_workers_meet_a_full_disk_and_go_on_after_it(clone):
    build_components(clone / "models/smoke")
    change(clone, runtime={"num_workers": 2})
    assert call(clone, "sample_prompts").returncode == 0
    for name in ("train", "test"):
        path = clone / f"data/prompts/{name}.jsonl"
        write_prompts(path, read_prompts(path)[:20])
    small = call_anew(clone, "generate", limit="trap '' XFSZ; ulimit -f 20;")
    assert small.returncode == 2
    assert small.stderr.splitlines()[-1].startswith("error: no space left to write")  # before it, how far it was
    assert "Traceback" not in small.stderr
    assert [p.name for p in (clone / "data/generated/train").iterdir()] == ["fingerprint.json"]
    change(clone, runtime={"num_workers": 1})
    assert call(clone, "generate").returncode == 0
    assert len(list_shards(clone / "data/generated/test")) == 2
