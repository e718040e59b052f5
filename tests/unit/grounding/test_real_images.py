"""Real images with label maps as training data and test set of the grounding module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffground.config import GroundingConfig
from diffground.data.shards import (
    Sample,
    decode_array,
    decode_json,
    decode_label,
    decode_png,
    encode_json,
    list_shards,
    read_samples,
    write_shard,
)
from diffground.data.voc import VocDataset, VocItem, write_voc
from diffground.detection.oracle import count_found
from diffground.diffusion.generate import generate_shards
from diffground.diffusion.generator import Generator
from diffground.diffusion.inversion import invert, resample, round_trip_error
from diffground.errors import UserError
from diffground.evaluation.methods import foreground_method
from diffground.evaluation.real_images import score_real_images
from diffground.grounding.fit import fit_grounding
from diffground.grounding.oracle import read_labelled_samples
from diffground.grounding.real_images import InversionSummary, real_shards
from diffground.grounding.real_prompts import plan_real_images, squeeze
from diffground.prompts import PromptRecord
from diffground.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("pascal", seen=["bus", "cat", "pottedplant"], unseen=["dog"])
BUS, CAT, DOG, PLANT, SHEEP = (VOCABULARY.index(c) + 1 for c in ("bus", "cat", "dog", "pottedplant", "sheep"))
SETTINGS = {
    "min_area_frac": 0.01, "num_steps": 4, "tapped_step": 2, "fixed_point_iterations": 1, "batch_size": 2,
    "shard_size": 2,
}  # fmt: skip
CONFIG = GroundingConfig(
    reduced_channels=(4, 4, 8), embed_dim=16, num_layers=1, num_heads=2, ffn_dim=16, patch_size=1,
    tokens_at="features", branches="conditional", word_attention=False, gain_timesteps=(), query_noise=0.0,
    text_drop=0.0, training_type="without_zero_masks", iterations=3, batch_size=4, learning_rate=1e-3,
    weight_decay=0.0, decay_frac=0.0, mask_threshold=0.5, seed=0,
)  # fmt: skip


def labels_of(*areas: tuple[int, slice]) -> np.ndarray:
    """32 x 32 background with rows of labels."""
    label = np.zeros((32, 32), dtype=np.uint8)
    for value, rows in areas:
        label[rows] = value
    return label


LABELS = {
    "a": labels_of((CAT, slice(0, 8)), (255, slice(8, 10))),
    "b": labels_of((BUS, slice(0, 6)), (CAT, slice(10, 20))),
    "c": labels_of((DOG, slice(0, 20))),  # unseen alone
    "d": labels_of((BUS, slice(0, 4)), (CAT, slice(4, 9)), (PLANT, slice(9, 20))),  # three
    "e": labels_of((PLANT, slice(0, 9)), (DOG, slice(9, 12)), (SHEEP, slice(12, 14))),  # sheep is not used
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> VocDataset:
    root = tmp_path_factory.mktemp("devkit")
    rng = np.random.default_rng(0)
    write_voc(root, "train", (
        VocItem(id=id_, image=rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), label=label, objects=label)
        for id_, label in LABELS.items()
    ))  # fmt: skip
    return VocDataset(root, "train")


def write(dataset: VocDataset, folder: Path, generator: Generator, **changes: object) -> InversionSummary:
    arguments = {"named": VOCABULARY.seen, "vocabulary": VOCABULARY, "generator": generator, **SETTINGS, **changes}
    return real_shards(dataset, images_dir=folder / "images", oracle_dir=folder / "oracle", **arguments)


@pytest.fixture(scope="module")
def folder(dataset: VocDataset, generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    write(dataset, folder, generator)
    return folder


def test_prompts_name_the_two_largest_seen_categories(dataset: VocDataset) -> None:
    plan = plan_real_images(dataset, vocabulary=VOCABULARY, named=VOCABULARY.seen, min_area_frac=0.01, image_size=32)
    assert [(real.record.id, real.record.prompt, real.record.group) for real in plan.images] == [
        ("real-a", "a photograph of a cat", "one_seen"),
        ("real-b", "a photograph of a cat and a bus", "two_seen"),
        ("real-d", "a photograph of a potted plant and a cat", "two_seen"),
        ("real-e", "a photograph of a potted plant", "one_seen"),
    ]
    assert [real.index for real in plan.images] == [0, 1, 3, 4]
    assert (plan.num_skipped, plan.num_cut) == (1, 1)


def test_a_category_is_named_from_the_smallest_area_on(dataset: VocDataset) -> None:
    def named_in_b(min_area_frac: float) -> tuple[str, ...]:
        plan = plan_real_images(
            dataset, vocabulary=VOCABULARY, named=VOCABULARY.seen, min_area_frac=min_area_frac, image_size=32
        )
        return plan.images[1].record.categories

    assert named_in_b(6 / 32) == ("cat", "bus")
    assert named_in_b(6 / 32 + 0.001) == ("cat",)


def test_unseen_categories_are_named_where_the_caller_says_so(dataset: VocDataset) -> None:
    used = (*VOCABULARY.seen, *VOCABULARY.unseen)
    plan = plan_real_images(dataset, vocabulary=VOCABULARY, named=used, min_area_frac=0.01, image_size=32)
    groups = [(real.record.categories, real.record.group) for real in plan.images]
    assert groups[2] == (("dog",), "one_unseen")
    assert groups[4] == (("pottedplant", "dog"), "two_seen_unseen")


def test_shards_hold_what_inversion_and_labels_give(dataset: VocDataset, generator: Generator, folder: Path) -> None:
    samples = list(read_samples(folder / "images"))
    assert [path.name for path in list_shards(folder / "images")] == ["000000.tar", "000001.tar"]
    assert [s.key for s in samples] == ["real-a", "real-b", "real-d", "real-e"]
    metas = [decode_json(s.members["meta.json"]) for s in samples]
    images = np.stack([dataset[i][0] for i in (0, 1, 3, 4)])
    prompts = [meta["prompt"] for meta in metas]
    latents = invert(generator, images, prompts, num_steps=4, tapped_step=2, fixed_point_iterations=1)
    returned = resample(generator, latents, prompts, num_steps=4, from_step=2)
    errors = round_trip_error(generator.encode(images), returned)
    for i, (sample, meta) in enumerate(zip(samples, metas, strict=True)):
        assert set(sample.members) == {"image.png", "label.png", "latent.npy", "meta.json"}
        assert np.array_equal(decode_png(sample.members["image.png"]), images[i])
        stored = decode_array(sample.members["latent.npy"])
        assert stored.dtype == np.float16
        torch.testing.assert_close(torch.from_numpy(stored).float(), latents[i], atol=3e-3, rtol=3e-3)
        assert meta["timestep"] == generator.timestep(num_steps=4, tapped_step=2)
        assert (meta["sampler"], meta["image_id"]) == ("ddim_inversion", "abde"[i])
        assert meta["inversion_error"] == pytest.approx(float(errors[i]), abs=2e-4)


def test_pixels_that_nobody_labelled_are_ignored(folder: Path) -> None:
    samples = {s.key: s for s in read_labelled_samples(generated=folder / "images", oracle=folder / "oracle")}
    assert list(samples) == ["real-a", "real-b", "real-d", "real-e"]
    masks = samples["real-d"].masks()
    assert sorted(masks) == ["cat", "pottedplant"], "the bus, third in size, is not named"
    assert np.array_equal(masks["cat"], LABELS["d"] == CAT)
    ignored = {key: s.ignored() for key, s in samples.items()}
    assert ignored["real-a"] is not None
    assert np.array_equal(ignored["real-a"], LABELS["a"] == 255)
    assert ignored["real-b"] is None
    assert ignored["real-d"] is None, "the unnamed bus is known not to be what is named"
    assert ignored["real-e"] is not None
    assert np.array_equal(ignored["real-e"], np.isin(LABELS["e"], [DOG, SHEEP])), "unseen and unused categories"
    assert count_found(folder / "oracle").num_samples == {(1, 1): 2, (2, 2): 2}


def test_neither_batch_size_nor_an_interruption_changes_the_shards(
    dataset: VocDataset, generator: Generator, folder: Path, tmp_path: Path
) -> None:
    summary = write(dataset, tmp_path, generator, batch_size=1)
    assert (summary.num_images, summary.num_skipped, summary.num_cut) == (4, 1, 1)
    assert summary.metrics()["mean_inversion_error"] == summary.mean_inversion_error > 0
    for one, other in zip(read_samples(tmp_path / "images"), read_samples(folder / "images"), strict=True):
        assert one.members["label.png"] == other.members["label.png"]
        latents = [torch.from_numpy(decode_array(s.members["latent.npy"])).float() for s in (one, other)]
        torch.testing.assert_close(latents[0], latents[1], atol=3e-3, rtol=3e-3)
    files = sorted(tmp_path.rglob("*.tar"))
    before = {file: file.read_bytes() for file in files}
    times = {file: file.stat().st_mtime_ns for file in files}
    assert write(dataset, tmp_path, generator, batch_size=1) == summary
    assert {file: file.stat().st_mtime_ns for file in files} == times, "what is complete is kept"
    (tmp_path / "images/000001.tar").unlink()
    write(dataset, tmp_path, generator, batch_size=1)
    assert {file: file.read_bytes() for file in files} == before
    assert (tmp_path / "images/000000.tar").stat().st_mtime_ns == times[tmp_path / "images/000000.tar"]


def test_grounding_trains_on_real_images_and_on_both(
    dataset: VocDataset, generator: Generator, folder: Path, tmp_path: Path
) -> None:
    record = PromptRecord(
        id="train-0", prompt="a photograph of a cat", categories=("cat",), group="one_seen", seed=5, source="template"
    )
    arguments = {
        "generator": generator, "vocabulary": VOCABULARY, "config": CONFIG, "feature_batch_size": 2,
        "device": torch.device("cpu"),
    }  # fmt: skip
    real = fit_grounding(generated=folder / "images", oracle=folder / "oracle", **arguments)
    assert (real.counts.num_samples, real.counts.num_queries, real.counts.num_skipped_queries) == (4, 6, 0)

    def with_generated(num_steps: int):  # type: ignore[no-untyped-def]
        generate_shards(
            [record], out_dir=tmp_path / "generated", generator=generator, num_steps=num_steps, guidance_scale=1.0,
            tapped_step=2, batch_size=1, shard_size=2,
        )  # fmt: skip
        mask = {"mask.cat.png": next(iter(read_samples(folder / "oracle"))).members["mask.cat.png"]}
        write_oracle(tmp_path / "oracle", "train-0", mask)
        return fit_grounding(
            generated=tmp_path / "generated", oracle=tmp_path / "oracle",
            further=[(folder / "images", folder / "oracle")], **arguments,
        )  # fmt: skip

    both = with_generated(4)
    assert both.counts.num_samples == 5
    assert np.isfinite(both.curve.losses[-1])
    with pytest.raises(UserError, match="all latents must be of one timestep, got 251, 334"):
        with_generated(3)


def write_oracle(folder: Path, key: str, masks: dict[str, bytes]) -> None:
    write_shard(folder / "000000.tar", [Sample(key=key, members={**masks, "meta.json": encode_json({})})])


def test_real_images_are_scored_in_labelled_pixels(dataset: VocDataset, generator: Generator, tmp_path: Path) -> None:
    used = (*VOCABULARY.seen, *VOCABULARY.unseen)
    write(dataset, tmp_path, generator, named=used)
    samples = list(read_labelled_samples(generated=tmp_path / "images", oracle=tmp_path / "oracle"))
    everywhere = np.ones((32, 32), dtype=bool)
    tables = score_real_images(
        samples,
        {"all": lambda batch: [dict.fromkeys(s.categories, everywhere) for s in batch], "fg": foreground_method},
        seen=VOCABULARY.seen, unseen=VOCABULARY.unseen, batch_size=2,
    )  # fmt: skip
    # rows of 32: a has 2 ignored, e 2. cat: 8 of 30, 10 of 32 and 5 of 32; bus: 6 of 32 (in d it is not named);
    # potted plant: 11 of 32 and 9 of 30; dog: 20 of 32 and 3 of 30
    expected = {
        "cat": 100 * 23 / 94, "bus": 100 * 6 / 32, "pottedplant": 100 * 20 / 62, "dog": 100 * 23 / 62
    }  # fmt: skip
    assert tables["all"].per_category == pytest.approx(expected)
    seen = (expected["cat"] + expected["bus"] + expected["pottedplant"]) / 3
    assert tables["all"].seen == pytest.approx(seen)
    assert tables["all"].unseen == pytest.approx(expected["dog"])
    assert tables["all"].harmonic == pytest.approx(2 * seen * expected["dog"] / (seen + expected["dog"]))
    assert tables["all"].absent == ()
    # foreground: cat 8 of 8, 10 of 16 and 5 of 16
    assert tables["fg"].per_category["cat"] == pytest.approx(100 * 23 / 40)


def test_images_are_squeezed_whole_into_the_generators_square() -> None:
    image = np.zeros((20, 40, 3), dtype=np.uint8)
    label = np.zeros((20, 40), dtype=np.uint8)
    image[:, 30:], label[:, 30:] = 250, 7  # the right quarter
    small, small_label = squeeze(image, label, image_size=8)
    assert (small.shape, small.dtype, small_label.dtype) == ((8, 8, 3), np.uint8, np.uint8)
    assert small_label.tolist() == [[0] * 6 + [7] * 2] * 8
    assert (small[:, 7] > 240).all()
    assert (small[:, :5] < 10).all()
    same, same_label = squeeze(small, small_label, image_size=8)
    assert np.array_equal(same, small)
    assert np.array_equal(same_label, small_label)


def test_bad_settings_are_refused_before_anything_is_dropped(
    dataset: VocDataset, generator: Generator, tmp_path: Path
) -> None:
    write(dataset, tmp_path, generator)
    for change, message in [
        ({"tapped_step": 5}, "tapped_step"),
        ({"fixed_point_iterations": -1}, "fixed_point_iterations"),
        ({"min_area_frac": 1.5}, "min_area_frac must be 0 to 1, got 1.5"),
        ({"named": ["sheep", "dog"], "min_area_frac": 0.7}, "none of 5 images shows one of sheep, dog on 70% of its"),
        ({"named": ["zebra"]}, "'zebra' is not one of the 20 categories"),
    ]:
        with pytest.raises(UserError, match=message):
            write(dataset, tmp_path, generator, **change)
    assert len(list_shards(tmp_path / "images")) == len(list_shards(tmp_path / "oracle")) == 2


def test_other_labels_start_anew(dataset: VocDataset, generator: Generator, tmp_path: Path) -> None:
    write(dataset, tmp_path, generator)
    root = tmp_path / "devkit"
    write_voc(root, "train", (
        VocItem(id=id_, image=dataset[i][0], label=np.where(label == 255, np.uint8(0), label), objects=label)
        for i, (id_, label) in enumerate(LABELS.items())
    ))  # fmt: skip
    write(VocDataset(root, "train"), tmp_path, generator)
    labels = [decode_label(s.members["label.png"]) for s in read_samples(tmp_path / "images")]
    assert not (labels[0] == 255).any()
    samples = list(read_labelled_samples(generated=tmp_path / "images", oracle=tmp_path / "oracle"))
    assert samples[0].ignored() is None


def test_an_inversion_that_diverges_names_the_image(dataset: VocDataset, generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="image 'a': DDIM inversion diverged with guidance_scale 1e\\+38 and fixed_point"
    ):
        write(dataset, tmp_path, generator, guidance_scale=1e38)
