"""What the writers of samples wrote, the reader returns; generated shards joined with the oracle's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from diffground.data.labelled import (
    LabelledSample,
    image_sample,
    list_label_maps,
    oracle_sample,
    read_labelled_samples,
)
from diffground.data.shards import Sample, encode_array, encode_json, encode_mask, encode_png, read_shard, write_shard
from diffground.errors import UserError

DOG = np.eye(4, dtype=bool)


def write_generated(folder: Path, keys: list[str], name: str = "000000") -> None:
    meta = {
        "id": "x",
        "prompt": "a photograph of a dog and a cat",
        "categories": ["dog", "cat"],
        "group": "two_seen",
        "seed": 7,
        "source": "template",
        "timestep": 49,
    }
    members = {
        "image.png": encode_png(np.full((4, 4, 3), 9, dtype=np.uint8)),
        "latent.npy": encode_array(np.ones((2, 1, 1), dtype=np.float16)),
        "meta.json": encode_json(meta),
    }
    write_shard(folder / f"{name}.tar", [Sample(key=key, members=members) for key in keys])


def write_oracle(folder: Path, keys: list[str], name: str = "000000") -> None:
    members = {"mask.dog.png": encode_mask(DOG), "mask.bus.png": encode_mask(~DOG), "meta.json": encode_json({})}
    write_shard(folder / f"{name}.tar", [Sample(key=key, members=members) for key in keys])


def test_samples_are_joined_and_hold_masks_of_named_categories_only(tmp_path: Path) -> None:
    write_generated(tmp_path / "generated", ["train-0", "train-1"])
    write_oracle(tmp_path / "oracle", ["train-0", "train-1"])
    samples = list(read_labelled_samples(generated=tmp_path / "generated", oracle=tmp_path / "oracle"))
    assert [s.key for s in samples] == ["train-0", "train-1"]
    sample = samples[0]
    assert sample.categories == ("dog", "cat")
    assert (sample.group, sample.seed, sample.timestep) == ("two_seen", 7, 49)
    assert sample.latent.dtype == np.float16
    assert sample.image().tolist() == [[[9] * 3] * 4] * 4
    assert list(sample.masks()) == ["dog"]
    assert np.array_equal(sample.masks()["dog"], DOG)
    assert sample.ignored() is None, "a detector leaves no pixel out"


def test_shards_of_different_samples_are_refused(tmp_path: Path) -> None:
    write_generated(tmp_path / "generated", ["train-0", "train-1"])
    write_oracle(tmp_path / "oracle", ["train-0", "train-2"])
    with pytest.raises(UserError, match=r"oracle/000000.tar: its samples are not those of .*; run `dvc repro`"):
        list(read_labelled_samples(generated=tmp_path / "generated", oracle=tmp_path / "oracle"))


def test_a_missing_oracle_shard_is_reported(tmp_path: Path) -> None:
    for name in ("000000", "000001"):
        write_generated(tmp_path / "generated", [f"train-{name}"], name)
    write_oracle(tmp_path / "oracle", ["train-000000"])
    with pytest.raises(UserError, match=r"one shard for each of the 2 of .*, got 1; run `dvc repro`"):
        list(read_labelled_samples(generated=tmp_path / "generated", oracle=tmp_path / "oracle"))


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder of shards"):
        list(read_labelled_samples(generated=tmp_path / "generated", oracle=tmp_path / "oracle"))


PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
LABEL = np.array([[0, 1, 2, 255]] * 4, dtype=np.uint8)
LATENT = np.linspace(-3, 3, 8, dtype=np.float16).reshape(2, 2, 2)
RECORD = {
    "id": "train-000000",
    "prompt": "a photograph of a dog and a cat",
    "categories": ("dog", "cat"),
    "group": "two_seen",
    "seed": 7,
    "source": "template",
}
SUMMARY = {"dog": {"max_prob": 0.9, "area_frac": 0.25}}
KINDS = {  # of stages generate, invert_real, synthesize and text2mask
    "generated": {**RECORD, "settings": {"timestep": 49}, "latent": LATENT},
    "inverted": {
        **RECORD,
        "settings": {"timestep": 49},
        "latent": LATENT,
        "label": LABEL,
        "image_id": "2007_000032",
        "inversion_error": 0.0213,
    },
    "synthetic": {**RECORD, "settings": {"timestep": 49}, "label": LABEL, "mask_summary": SUMMARY},
    "pseudo": {
        "id": "real-1",
        "prompt": "a photograph of a dog",
        "categories": ["dog"],
        "settings": {"seed": 3},
        "label": LABEL,
        "image_id": "1",
    },
}


def stored(folder: Path, *samples: Sample) -> list[Sample]:
    """What read_shard gives of them."""
    write_shard(folder / "000000.tar", samples)
    return list(read_shard(folder / "000000.tar"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_was_written_is_read_back(tmp_path: Path, kind: str) -> None:
    fields = KINDS[kind]
    (sample,) = map(LabelledSample, stored(tmp_path, image_sample(**fields, image=PIXELS)))
    assert (sample.key, sample.prompt, sample.categories) == (
        fields["id"],
        fields["prompt"],
        tuple(fields["categories"]),
    )
    assert np.array_equal(sample.image(), PIXELS)
    for name in ("group", "seed", "image_id", "inversion_error"):
        if name in fields:
            assert getattr(sample, name) == fields[name]
    for name, value in fields["settings"].items():
        assert getattr(sample, name) == value
    if "latent" in fields:
        assert sample.latent.dtype == np.float16
        assert np.array_equal(sample.latent, LATENT)
    assert sample.has_label == ("label" in fields)
    if "label" in fields:
        assert np.array_equal(sample.label(), LABEL)
    assert sample.found == () and sample.masks() == {} and sample.ignored() is None, "no oracle was joined"


def test_members_and_keys_are_those_that_were_given() -> None:
    sample = image_sample(**KINDS["inverted"], image=PIXELS)
    assert set(sample.members) == {"image.png", "label.png", "latent.npy", "meta.json"}
    assert json.loads(sample.members["meta.json"]) == {
        **RECORD,
        "categories": ["dog", "cat"],
        "timestep": 49,
        "image_id": "2007_000032",
        "inversion_error": 0.0213,
    }
    sample = image_sample(**KINDS["synthetic"], image=PIXELS)
    assert set(sample.members) == {"image.png", "label.png", "meta.json"}
    assert json.loads(sample.members["meta.json"])["masks"] == SUMMARY
    detected = oracle_sample(
        "a", categories=["dog", "cat"], masks={"dog": DOG}, scores={"dog": 0.5}, num_instances={"dog": 2}
    )
    assert set(detected.members) == {"mask.dog.png", "meta.json"}
    assert json.loads(detected.members["meta.json"]) == {
        "id": "a",
        "categories": ["dog", "cat"],
        "found": ["dog"],
        "scores": {"dog": 0.5},
        "num_instances": {"dog": 2},
    }


@pytest.mark.parametrize("ignored", [None, ~DOG], ids=["of a detector", "of labels"])
def test_masks_that_were_written_are_read_back(tmp_path: Path, ignored: np.ndarray | None) -> None:
    masks = {"dog": DOG, "potted plant": DOG[::-1]}
    written = oracle_sample("a", categories=["potted plant", "cat", "dog"], masks=masks, ignored=ignored)
    (sample,) = (LabelledSample(s, oracle=s) for s in stored(tmp_path, written))
    assert sample.categories == ("potted plant", "cat", "dog")
    assert set(sample.found) == {"dog", "potted plant"}
    assert sample.masks().keys() == masks.keys()
    assert all(np.array_equal(sample.masks()[category], mask) for category, mask in masks.items())
    assert (sample.ignored() is None) == (ignored is None)
    if ignored is not None:
        assert np.array_equal(sample.ignored(), ignored)


def test_a_sample_without_its_image_keeps_the_rest(tmp_path: Path) -> None:
    (image,) = stored(tmp_path / "images", image_sample(**KINDS["inverted"], image=PIXELS))
    (oracle,) = stored(tmp_path / "oracle", oracle_sample("train-000000", categories=["dog"], masks={"dog": DOG}))
    sample = LabelledSample(image, oracle).without_image()
    assert set(sample.sample.members) == {"latent.npy", "meta.json"}
    assert np.array_equal(sample.latent, LATENT)
    assert np.array_equal(sample.masks()["dog"], DOG)
    with pytest.raises(UserError, match=r"has no member 'image\.png'"):
        sample.image()


def test_label_maps_are_found_by_their_headers_and_read_one_by_one(tmp_path: Path) -> None:
    samples = [
        image_sample(**{**KINDS["synthetic"], "id": f"s-{i}", "label": np.full_like(LABEL, i)}, image=PIXELS + i)
        for i in range(3)
    ]
    stored(tmp_path, *samples)
    listed = list(list_label_maps(tmp_path / "000000.tar"))
    assert len(listed) == 3
    image, label = listed[2].read()
    assert np.array_equal(image, PIXELS + 2)
    assert np.array_equal(label, np.full_like(LABEL, 2))


READERS = {
    "image.png": LabelledSample.image,
    "label.png": LabelledSample.label,
    "latent.npy": lambda sample: sample.latent,
    "meta.json": lambda sample: sample.categories,
}


@pytest.mark.parametrize("member", READERS)
def test_a_sample_without_a_member_is_named(tmp_path: Path, member: str) -> None:
    whole = image_sample(**KINDS["inverted"], image=PIXELS)
    rest = {name: content for name, content in whole.members.items() if name != member}
    (sample,) = stored(tmp_path, Sample("train-000000", rest))
    expected = f"{tmp_path}/000000.tar: sample 'train-000000' has no member '{member}'; delete the file and run `dvc"
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        READERS[member](LabelledSample(sample))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("member", "content", "problem"),
    [
        ("image.png", b"no picture", "holds an image that cannot be decoded"),
        ("label.png", b"", "holds an image that cannot be decoded"),
        ("latent.npy", encode_array(LATENT)[:-3], "is no array of numbers"),
        ("meta.json", b"{", "is no JSON object"),
        ("meta.json", b"\xff", "is no JSON object"),
        ("meta.json", b"[]", "is no JSON object"),
        ("meta.json", b'{"prompt": "a dog"}', ": 'categories' must be list, got None"),
        ("meta.json", b'{"categories": "dog"}', ": 'categories' must be list, got 'dog'"),
    ],
)
def test_a_foreign_member_is_named(tmp_path: Path, member: str, content: bytes, problem: str) -> None:
    members = {**image_sample(**KINDS["inverted"], image=PIXELS).members, member: content}
    (sample,) = stored(tmp_path, Sample("train-000000", members))
    place = f"{tmp_path}/000000.tar: sample 'train-000000', member '{member}'"
    with pytest.raises(UserError, match=rf"{re.escape(place)}:? {re.escape(problem.lstrip(': '))}") as error:
        READERS[member](LabelledSample(sample))
    assert "\n" not in str(error.value)


def test_a_foreign_mask_is_named_with_the_oracles_shard(tmp_path: Path) -> None:
    (image,) = stored(tmp_path / "images", image_sample(**KINDS["generated"], image=PIXELS))
    (oracle,) = stored(tmp_path / "oracle", Sample("train-000000", {"mask.dog.png": b"", "ignored.png": b""}))
    sample = LabelledSample(image, oracle)
    for member, read in (("mask.dog.png", sample.masks), ("ignored.png", sample.ignored)):
        place = f"{tmp_path}/oracle/000000.tar: sample 'train-000000', member '{member}' holds an image that"
        with pytest.raises(UserError, match=re.escape(place)):
            read()
