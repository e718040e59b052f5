"""Label maps from image-level labels: what goes in, that nothing else does, and the shards that come out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffground.baselines.dense_crf import DenseCrf
from diffground.baselines.pseudo_labels import (
    LabelRule,
    WeakImages,
    calibrate_threshold,
    noise_seed,
    plan_weak_images,
    pseudo_label_shards,
)
from diffground.baselines.text2mask import Text2Mask, label_map
from diffground.data.labelled import LabelledSample, image_sample, oracle_sample
from diffground.data.palette import IGNORE
from diffground.data.shards import (
    Sample,
    decode_json,
    decode_label,
    decode_png,
    list_shards,
    read_samples,
)
from diffground.data.voc import VocDataset, VocItem, write_voc
from diffground.diffusion.generator import Generator
from diffground.errors import UserError
from diffground.segmentation.sources import ShardSource
from diffground.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("pascal", seen=["bus", "cat", "pottedplant"], unseen=["dog"])
BUS, CAT, COW, DOG, PLANT = (VOCABULARY.index(c) + 1 for c in ("bus", "cat", "cow", "dog", "pottedplant"))
TABLE, HORSE, SHEEP = (VOCABULARY.index(c) + 1 for c in ("diningtable", "horse", "sheep"))
CPU = torch.device("cpu")
SHOWN = {
    "a": (CAT,), "b": (DOG, BUS), "c": (COW,), "d": (), "e": (DOG, COW), "f": (CAT, TABLE, HORSE, SHEEP),
    "g": (PLANT, DOG), "h": (BUS,),
}  # fmt: skip


def devkit(root: Path, *, dog_rows: slice = slice(4, 8), brightness: int = 0) -> VocDataset:
    """Images of different sizes; categories lie in bands of four rows, the dog in `dog_rows`."""
    items = []
    for i, (id_, shown) in enumerate(SHOWN.items()):
        size = (32, 32 + 4 * i)
        image = np.random.default_rng(i).integers(brightness, 256, (*size, 3), dtype=np.uint8)
        label = np.zeros(size, dtype=np.uint8)
        for band, value in enumerate(shown):
            label[dog_rows if value == DOG else slice(12 + 4 * band, 16 + 4 * band)] = value
        items.append(VocItem(id=id_, image=image, label=label, objects=label))
    write_voc(root, "train", items)
    return VocDataset(root, "train")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> VocDataset:
    return devkit(tmp_path_factory.mktemp("devkit"))


@pytest.fixture(scope="module")
def method(generator: Generator) -> Text2Mask:
    return Text2Mask(generator=generator, noise_frac=0.1, word_sizes=(16,), num_noises=1, power=1, max_affinity_size=8)


def plan(dataset: VocDataset, generator: Generator, num_images: int = 100) -> WeakImages:
    return plan_weak_images(dataset, vocabulary=VOCABULARY, tokenizer=generator.tokenizer, num_images=num_images)


def write(
    dataset: VocDataset,
    out_dir: Path,
    method: Text2Mask,
    *,
    num_images: int = 100,
    batch_size: int = 4,
    shard_size: int = 4,
    seed: int = 0,
    rule: LabelRule | None = None,
) -> int:
    return pseudo_label_shards(
        dataset,
        plan(dataset, method.generator, num_images),
        out_dir=out_dir,
        method=method,
        rule=rule or LabelRule(threshold=0.5, uncertain_band=0.0),
        vocabulary=VOCABULARY,
        seed=seed,
        batch_size=batch_size,
        shard_size=shard_size,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_images_without_a_used_category_and_with_too_many_are_left_out(
    dataset: VocDataset, generator: Generator
) -> None:
    # "c" shows a cow alone, which is not used, "d" nothing; the prompt of "f" is longer than 24 tokens
    weak = plan(dataset, generator)
    assert [(image.id, image.labels) for image in weak.images] == [
        ("a", (CAT,)),
        ("b", (BUS, DOG)),
        ("e", (COW, DOG)),
        ("g", (DOG, PLANT)),
        ("h", (BUS,)),
    ]
    assert weak.counts() == {"num_images": 5, "num_images_without": 2, "num_images_with_too_many": 1}
    assert [dataset.ids[image.index] for image in weak.images] == ["a", "b", "e", "g", "h"]
    assert [image.id for image in plan(dataset, generator, 2).images] == ["a", "b"]


def test_a_sample_is_the_image_and_the_label_map_of_its_maps(
    dataset: VocDataset, method: Text2Mask, tmp_path: Path
) -> None:
    write(dataset, tmp_path, method)
    samples = list(read_samples(tmp_path))
    assert [s.key for s in samples] == ["real-a", "real-b", "real-e", "real-g", "real-h"]
    for sample in samples:
        assert set(sample.members) == {"image.png", "label.png", "meta.json"}
        image, label = dataset[dataset.ids.index(sample.key.removeprefix("real-"))]
        assert np.array_equal(decode_png(sample.members["image.png"]), image)
        assert decode_label(sample.members["label.png"]).shape == label.shape
    image = dataset[1][0]
    maps = method.maps([image], [["bus", "dog"]], [noise_seed(0, "b")])[0]
    expected = label_map(maps, [BUS, DOG], threshold=0.5)
    assert (decode_label(samples[1].members["label.png"]) != expected).mean() < 0.01
    assert set(np.unique(expected)) == {0, BUS, DOG}
    meta = decode_json(samples[1].members["meta.json"])
    assert meta["prompt"] == "a photograph of a bus and a dog"
    assert (meta["image_id"], meta["categories"], meta["threshold"]) == ("b", ["bus", "dog"], 0.5)
    assert np.array_equal(ShardSource(tmp_path)[1][1], decode_label(samples[1].members["label.png"]))


def test_pixels_of_a_category_that_is_not_used_are_ignored(
    dataset: VocDataset, method: Text2Mask, tmp_path: Path
) -> None:
    write(dataset, tmp_path, method)
    maps = method.maps([dataset[4][0]], [["cow", "dog"]], [noise_seed(0, "e")])[0]
    expected = label_map(maps, [IGNORE, DOG], threshold=0.5)
    label = ShardSource(tmp_path)[2][1]
    assert set(np.unique(label)) == {0, DOG, IGNORE}
    assert (label != expected).mean() < 0.01


@pytest.mark.parametrize("crf", [None, DenseCrf(2, 3.0, 0.1, 30.0)])
def test_a_batch_of_four_equals_four_batches_of_one(
    dataset: VocDataset, method: Text2Mask, tmp_path: Path, crf: DenseCrf | None
) -> None:
    rule = LabelRule(threshold=0.5, uncertain_band=0.05, crf=crf)
    for name, batch_size, shard_size in (("four", 4, 4), ("one", 1, 4), ("shards", 2, 1)):
        write(dataset, tmp_path / name, method, num_images=4, batch_size=batch_size, shard_size=shard_size, rule=rule)
    four, one, shards = (ShardSource(tmp_path / name) for name in ("four", "one", "shards"))
    assert len(four) == len(one) == len(shards) == 4
    for i in range(4):
        assert len(np.unique(four[i][1])) > 2
        # a pixel whose map is the threshold up to rounding may go either way
        assert (four[i][1] != one[i][1]).mean() < 0.005
        assert (four[i][1] != shards[i][1]).mean() < 0.005


def test_the_noise_depends_on_seed_and_image_alone() -> None:
    seeds = [noise_seed(seed, id_) for seed in (0, 1) for id_ in ("2007_000032", "2007_000039", "")]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert noise_seed(0, "2007_000032") == seeds[0]


@pytest.mark.parametrize(("changes", "same"), [({"dog_rows": slice(24, 31)}, True), ({"dog_rows": slice(0)}, False)])
def test_where_an_unseen_category_is_never_reaches_the_label_maps(
    dataset: VocDataset, method: Text2Mask, tmp_path: Path, changes: dict[str, slice], same: bool
) -> None:
    # other true pixels change no byte, while that there is a dog at all does
    write(dataset, tmp_path / "true", method)
    write(devkit(tmp_path / "poisoned", **changes), tmp_path / "written", method)
    assert (contents(tmp_path / "true") == contents(tmp_path / "written")) is same


def test_an_interrupted_run_goes_on_and_ends_the_same(dataset: VocDataset, method: Text2Mask, tmp_path: Path) -> None:
    assert write(dataset, tmp_path / "whole", method, shard_size=2) == 3
    assert write(dataset, tmp_path / "again", method, shard_size=2) == 3
    kept = tmp_path / "again" / "000000.tar"
    (tmp_path / "again" / "000001.tar").unlink()
    (tmp_path / "again" / "000002.tar").write_bytes(kept.read_bytes()[:700])
    before = kept.stat().st_mtime_ns
    assert write(dataset, tmp_path / "again", method, shard_size=2) == 2
    assert kept.stat().st_mtime_ns == before
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_what_shapes_the_label_maps_makes_them_anew(dataset: VocDataset, method: Text2Mask, tmp_path: Path) -> None:
    def written(data: VocDataset = dataset, used: Text2Mask = method, **changes: object) -> int:
        return write(data, tmp_path / "shards", used, num_images=2, shard_size=1, **changes)

    assert (written(), written()) == (2, 0)
    assert (written(batch_size=1), written(seed=1), written()) == (0, 2, 2)
    assert written(rule=LabelRule(threshold=0.4, uncertain_band=0.0)) == 2
    assert written(rule=LabelRule(threshold=0.4, uncertain_band=0.0, crf=DenseCrf(1, 1.0, 0.1, 13.0))) == 2
    assert written(used=replace(method, power=0)) == 2
    assert written(devkit(tmp_path / "brighter", brightness=9), replace(method, power=0)) == 2


def test_no_images_leave_an_empty_folder(dataset: VocDataset, method: Text2Mask, tmp_path: Path) -> None:
    assert write(dataset, tmp_path / "shards", method) == 2
    assert write(dataset, tmp_path / "shards", method, num_images=0) == 0
    assert list(contents(tmp_path / "shards")) == ["fingerprint.json"]
    with pytest.raises(UserError, match="holds no shard"):
        list_shards(tmp_path / "shards")


def test_a_crf_without_weights_changes_no_label() -> None:
    rng = np.random.default_rng(0)
    maps, image = rng.random((2, 16, 16), dtype=np.float32), rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    rule = LabelRule(threshold=0.63, uncertain_band=0.0)
    with_crf = replace(rule, crf=DenseCrf(3, 0.0, 0.1, 13.0, smoothness_weight=0.0))
    expected = rule(maps, [3, 7], image, device=CPU)
    assert np.array_equal(with_crf(maps, [3, 7], image, device=CPU), expected)
    strong = replace(rule, crf=DenseCrf(3, 9.0, 0.3, 90.0))
    assert not np.array_equal(strong(maps, [3, 7], image, device=CPU), expected)


def generated(key: str, image: np.ndarray, masks: dict[str, np.ndarray], categories: tuple[str, ...]) -> LabelledSample:
    return LabelledSample(
        image_sample(id=key, prompt="", categories=categories, settings={}, image=image),
        oracle_sample(key, categories=categories, masks=masks),
    )


def test_the_threshold_fits_the_detectors_masks(method: Text2Mask) -> None:
    # the masks are the maps themselves from 0.3 on; the detector missed the dog of "c", which would say otherwise
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(3)]
    samples = []
    for key, image, categories in zip("abc", images, (("cat",), ("bus", "cat"), ("cat", "dog")), strict=True):
        maps = method.maps([image], [list(categories)], [noise_seed(4, key)])[0]
        label = label_map(maps, range(1, 1 + len(categories)), threshold=0.9 if key == "c" else 0.3)
        masks = {name: label == i + 1 for i, name in enumerate(categories) if name != "dog"}
        samples.append(generated(key, image, masks, categories))
    chosen = [
        calibrate_threshold(method, samples, vocabulary=VOCABULARY, num_calibration=num, seed=4, batch_size=batch_size)
        for num, batch_size in ((9, 1), (9, 2), (1, 1))
    ]
    assert chosen == pytest.approx([0.3] * 3, abs=0.0101)
    with pytest.raises(UserError, match=r"text2mask\.num_calibration: no mask"):
        calibrate_threshold(method, samples[2:], vocabulary=VOCABULARY, num_calibration=9, seed=4, batch_size=1)


def test_pixels_of_two_masks_do_not_count_for_the_threshold(method: Text2Mask) -> None:
    image = np.random.default_rng(6).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    maps = method.maps([image], [["bus", "cat"]], [noise_seed(0, "a")])[0]
    label = label_map(maps, [1, 2], threshold=0.4)
    low = maps.max(axis=0) < 0.2
    masks = {"bus": (label == 1) | low, "cat": (label == 2) | low}
    sample = generated("a", image, masks, ("bus", "cat"))
    threshold = calibrate_threshold(method, [sample], vocabulary=VOCABULARY, num_calibration=1, seed=0, batch_size=1)
    assert threshold == pytest.approx(0.4, abs=0.0101)


def test_samples_have_what_every_shard_has(dataset: VocDataset, method: Text2Mask, tmp_path: Path) -> None:
    write(dataset, tmp_path, method, num_images=1)
    (sample,) = read_samples(tmp_path)
    assert isinstance(sample, Sample)
    assert decode_json(sample.members["meta.json"])["generator"] == method.generator.generator_id
