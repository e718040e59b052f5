"""Real images with label maps as training data and test set of the grounding module."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from diffground.data.labelled import read_labelled_samples
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
from diffground.diffusion.inversion import invert_latents, resample, round_trip_error
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.evaluation.methods import foreground_method
from diffground.evaluation.real_images import score_real_images
from diffground.grounding.config import GroundingConfig
from diffground.grounding.fit import fit_grounding
from diffground.grounding.real_images import InversionSummary, real_shards
from diffground.prompts import PromptRecord
from tests.unit.grounding.toy_devkit import CAT, DOG, LABELS, SHEEP, VOCABULARY, write_devkit

SETTINGS = {
    "num_images": 9,
    "min_area_frac": 0.01,
    "sampling": Sampling(4, 3.0, 2),
    "fixed_point_iterations": 1,
    "batch_size": 2,
    "shard_size": 2,
}
CONFIG = GroundingConfig(
    reduced_channels=(4, 4, 8),
    embed_dim=16,
    num_layers=1,
    num_heads=2,
    ffn_dim=16,
    patch_size=1,
    tokens_at="features",
    branches="conditional",
    word_attention=False,
    gain_timesteps=(),
    query_noise=0.0,
    text_drop=0.0,
    training_data="real",
    training_type="without_zero_masks",
    iterations=3,
    batch_size=4,
    gradient_accumulation_steps=1,
    mixed_precision="none",
    learning_rate=1e-3,
    weight_decay=0.0,
    decay_frac=0.0,
    mask_threshold=0.5,
    resolve_overlaps=True,
    seed=0,
)


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("devkit")
    write_devkit(root)
    return root


@pytest.fixture(scope="module")
def dataset(devkit: Path) -> VocDataset:
    return VocDataset(devkit, "train")


def write(dataset: VocDataset, folder: Path, generator: Generator, **changes: object) -> InversionSummary:
    arguments = {"named": VOCABULARY.seen, "vocabulary": VOCABULARY, "generator": generator, **SETTINGS, **changes}
    return real_shards(dataset, images_dir=folder / "images", oracle_dir=folder / "oracle", **arguments)


@pytest.fixture(scope="module")
def folder(dataset: VocDataset, generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    write(dataset, folder, generator)
    return folder


def test_no_images_leave_folders_without_shards(dataset: VocDataset, generator: Generator, tmp_path: Path) -> None:
    write(dataset, tmp_path, generator)
    assert list((tmp_path / "images").glob("*.tar"))
    summary = write(dataset, tmp_path, generator, num_images=0)
    assert summary.metrics() == {"num_images": 0, "num_skipped": 0, "num_cut": 0, "mean_inversion_error": None}
    for folder in (tmp_path / "images", tmp_path / "oracle"):
        assert [path.name for path in folder.iterdir()] == ["fingerprint.json"]
    with pytest.raises(UserError, match="images: holds no shard"):
        list(read_labelled_samples(generated=tmp_path / "images", oracle=tmp_path / "oracle"))


def test_a_generator_that_cannot_be_inverted_may_be_left_alone(
    dataset: VocDataset, checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    config = tmp_path / "checkpoint/scheduler/scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "thresholding": True}))
    thresholding = Generator.load(
        str(tmp_path / "checkpoint"), device=torch.device("cpu"), dtype=torch.float32, image_size=32
    )
    assert write(dataset, tmp_path, thresholding, num_images=0).num_images == 0
    with pytest.raises(UserError, match="scheduler's thresholding cannot be inverted"):
        write(dataset, tmp_path, thresholding, num_images=1)


@pytest.mark.parametrize("poison", [SHEEP, 255])
def test_labels_of_unseen_categories_reach_no_training_shard(
    devkit: Path, generator: Generator, folder: Path, tmp_path: Path, poison: int
) -> None:
    write_voc(
        tmp_path / "devkit",
        "train",
        (
            VocItem(
                id=id_,
                image=devkit / f"JPEGImages/{id_}.jpg",
                label=np.where(label == DOG, np.uint8(poison), label),
                objects=label,
            )
            for id_, label in LABELS.items()
        ),
    )
    write(VocDataset(tmp_path / "devkit", "train"), tmp_path, generator)
    for kind in ("images", "oracle"):
        shards = list_shards(folder / kind)
        assert len(shards) == 2
        for shard in shards:
            assert (tmp_path / kind / shard.name).read_bytes() == shard.read_bytes(), "the dog made a difference"
    hidden = {DOG, SHEEP}
    for sample in read_samples(folder / "images"):
        assert hidden.isdisjoint(np.unique(decode_label(sample.members["label.png"])))
        meta = json.dumps(decode_json(sample.members["meta.json"]))
        assert not any(word in meta for word in ("dog", "sheep"))


def test_shards_hold_what_inversion_and_labels_give(dataset: VocDataset, generator: Generator, folder: Path) -> None:
    samples = list(read_samples(folder / "images"))
    assert [path.name for path in list_shards(folder / "images")] == ["000000.tar", "000001.tar"]
    assert [s.key for s in samples] == ["real-a", "real-b", "real-d", "real-e"]
    metas = [decode_json(s.members["meta.json"]) for s in samples]
    images = np.stack([dataset[i][0] for i in (0, 1, 3, 4)])
    prompts = [meta["prompt"] for meta in metas]
    clean = generator.encode(images)
    latents = invert_latents(generator, clean, prompts, num_steps=4, tapped_step=2, fixed_point_iterations=1)
    returned = resample(generator, latents, prompts, num_steps=4, from_step=2)
    errors = round_trip_error(clean, returned)
    for i, (sample, meta) in enumerate(zip(samples, metas, strict=True)):
        assert set(sample.members) == {"image.png", "label.png", "latent.npy", "meta.json"}
        assert np.array_equal(decode_png(sample.members["image.png"]), images[i])
        stored = decode_array(sample.members["latent.npy"])
        assert stored.dtype == np.float16
        torch.testing.assert_close(torch.from_numpy(stored).float(), latents[i], atol=3e-3, rtol=3e-3)
        assert meta["timestep"] == generator.timestep(Sampling(4, 1.0, 2))
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
        "generator": generator,
        "vocabulary": VOCABULARY,
        "config": CONFIG,
        "sampling": Sampling(3, 3.0, 1),
        "feature_batch_size": 2,
        "device": torch.device("cpu"),
    }
    real_source = (folder / "images", folder / "oracle")
    real = fit_grounding([real_source], **arguments)
    assert (real.counts.num_samples, real.counts.num_queries, real.counts.num_skipped_queries) == (4, 6, 0)

    def with_generated(num_steps: int):  # type: ignore[no-untyped-def]
        generate_shards(
            [record],
            out_dir=tmp_path / "generated",
            generator=generator,
            sampling=Sampling(num_steps, 1.0, 2),
            batch_size=1,
            shard_size=2,
        )
        mask = {"mask.cat.png": next(iter(read_samples(folder / "oracle"))).members["mask.cat.png"]}
        write_oracle(tmp_path / "oracle", "train-0", mask)
        return fit_grounding([(tmp_path / "generated", tmp_path / "oracle"), real_source], **arguments)

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
    scores = score_real_images(
        samples,
        {"all": lambda batch: [dict.fromkeys(s.categories, everywhere) for s in batch], "fg": foreground_method},
        seen=VOCABULARY.seen,
        unseen=VOCABULARY.unseen,
        batch_size=2,
    )
    tables = scores.tables
    # rows of 32: a has 2 ignored, e 2. cat: 8 of 30, 10 of 32 and 5 of 32; bus: 6 of 32 (in d it is not named);
    # potted plant: 11 of 32 and 9 of 30; dog: 20 of 32 and 3 of 30
    expected = {"cat": 100 * 23 / 94, "bus": 100 * 6 / 32, "pottedplant": 100 * 20 / 62, "dog": 100 * 23 / 62}
    assert tables["all"].per_category == pytest.approx(expected)
    seen = (expected["cat"] + expected["bus"] + expected["pottedplant"]) / 3
    assert tables["all"].seen == pytest.approx(seen)
    assert tables["all"].unseen == pytest.approx(expected["dog"])
    assert tables["all"].harmonic == pytest.approx(2 * seen * expected["dog"] / (seen + expected["dog"]))
    assert tables["all"].absent == ()
    # foreground: cat 8 of 8, 10 of 16 and 5 of 16
    assert tables["fg"].per_category["cat"] == pytest.approx(100 * 23 / 40)
    metrics = scores.metrics()
    assert metrics["num_images"] == {"all": 5, "seen": 4, "unseen": 2}, "image e is in both"
    assert set(metrics) == {"all", "fg", "num_images", "per_category", "absent"}
    assert metrics["all"] == pytest.approx(
        {"seen": seen, "unseen": expected["dog"], "harmonic": tables["all"].harmonic}
    )
    assert metrics["per_category"]["all"] == pytest.approx(expected)
    assert metrics["absent"] == []


def test_categories_without_a_real_image_are_listed_and_not_scored(folder: Path) -> None:
    samples = list(read_labelled_samples(generated=folder / "images", oracle=folder / "oracle"))
    metrics = score_real_images(
        samples, {"fg": foreground_method}, seen=VOCABULARY.seen, unseen=VOCABULARY.unseen, batch_size=4
    ).metrics()
    assert metrics["absent"] == ["dog"]
    assert metrics["num_images"] == {"all": 4, "seen": 4, "unseen": 0}
    assert (metrics["fg"]["unseen"], metrics["fg"]["harmonic"]) == (None, None)
    assert metrics["fg"]["seen"] > 0


def test_bad_settings_are_refused_before_anything_is_dropped(
    dataset: VocDataset, generator: Generator, tmp_path: Path
) -> None:
    write(dataset, tmp_path, generator)
    for change, message in [
        ({"sampling": Sampling(4, 3.0, 5)}, "tapped_step"),
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
    write_voc(
        root,
        "train",
        (
            VocItem(id=id_, image=dataset[i][0], label=np.where(label == 255, np.uint8(0), label), objects=label)
            for i, (id_, label) in enumerate(LABELS.items())
        ),
    )
    write(VocDataset(root, "train"), tmp_path, generator)
    labels = [decode_label(s.members["label.png"]) for s in read_samples(tmp_path / "images")]
    assert not (labels[0] == 255).any()
    samples = list(read_labelled_samples(generated=tmp_path / "images", oracle=tmp_path / "oracle"))
    assert samples[0].ignored() is None


def test_an_inversion_that_diverges_names_the_image(dataset: VocDataset, checkpoint: Path, tmp_path: Path) -> None:
    generator = Generator.load(str(checkpoint), device=torch.device("cpu"), dtype=torch.float32, image_size=32)
    generator._unet.conv_out.weight.data.mul_(1e38)
    message = r"image 'a': DDIM inversion diverged; set inversion.fixed_point_iterations \(1\) to 0 or generator.dtype"
    with pytest.raises(UserError, match=message):
        write(dataset, tmp_path, generator)
