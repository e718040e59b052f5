"""Generated shards joined with the oracle's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffground.data.labelled import read_labelled_samples
from diffground.data.shards import Sample, encode_array, encode_json, encode_mask, encode_png, write_shard
from diffground.errors import UserError

DOG = np.eye(4, dtype=bool)


def write_generated(folder: Path, keys: list[str], name: str = "000000") -> None:
    meta = {
        "id": "x", "prompt": "a photograph of a dog and a cat", "categories": ["dog", "cat"], "group": "two_seen",
        "seed": 7, "source": "template", "timestep": 49,
    }  # fmt: skip
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
