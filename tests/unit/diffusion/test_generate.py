"""Shards of samples: what is in them, and that they resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffground.data.shards import decode_array, decode_json, decode_png, list_shards, read_samples
from diffground.diffusion.generate import generate_shards
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.prompts import PromptRecord

SETTINGS = {"sampling": Sampling(3, 3.0, 1), "batch_size": 2, "shard_size": 3}


@pytest.fixture(scope="module")
def records() -> list[PromptRecord]:
    names = ["dog", "cat", "bus", "dog", "cat"]
    return [
        PromptRecord(
            id=f"test-{i:06d}",
            prompt=f"a photograph of a {name}",
            categories=(name,),
            group="one_seen",
            seed=100 + i,
            source="template",
        )
        for i, name in enumerate(names)
    ]


def test_shards_hold_image_latent_and_record(generator: Generator, records: list[PromptRecord], tmp_path: Path) -> None:
    assert generate_shards(records, out_dir=tmp_path, generator=generator, **SETTINGS) == 2
    assert [path.name for path in list_shards(tmp_path)] == ["000000.tar", "000001.tar"]
    samples = list(read_samples(tmp_path))
    assert [sample.key for sample in samples] == [record.id for record in records]
    expected = generator.sample([r.prompt for r in records], [r.seed for r in records], SETTINGS["sampling"])
    for i, (record, sample) in enumerate(zip(records, samples, strict=True)):
        assert set(sample.members) == {"image.png", "latent.npy", "meta.json"}
        image, latent = decode_png(sample.members["image.png"]), decode_array(sample.members["latent.npy"])
        assert np.abs(image.astype(int) - expected.images[i].astype(int)).max() <= 1
        assert latent.dtype == np.float16
        torch.testing.assert_close(torch.from_numpy(latent).float(), expected.latents[i], atol=2e-3, rtol=2e-3)
        meta = decode_json(sample.members["meta.json"])
        assert {key: meta[key] for key in record.to_json()} == record.to_json()
        assert (meta["generator"], meta["timestep"]) == (generator.generator_id, expected.timestep)


def test_same_settings_give_the_same_bytes(generator: Generator, records: list[PromptRecord], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        generate_shards(records, out_dir=tmp_path / folder, generator=generator, **SETTINGS)
    shards = list_shards(tmp_path / "a")
    assert len(shards) == 2
    assert all(path.read_bytes() == (tmp_path / "b" / path.name).read_bytes() for path in shards)


def test_missing_shard_alone_is_made_again(generator: Generator, records: list[PromptRecord], tmp_path: Path) -> None:
    generate_shards(records, out_dir=tmp_path, generator=generator, **SETTINGS)
    first, second = list_shards(tmp_path)
    before, kept = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    assert generate_shards(records, out_dir=tmp_path, generator=generator, **SETTINGS) == 1
    assert first.stat().st_mtime_ns == kept
    assert second.read_bytes() == before


def test_other_settings_start_anew(generator: Generator, records: list[PromptRecord], tmp_path: Path) -> None:
    def generate(chosen: list[PromptRecord], **changed: Any) -> int:
        return generate_shards(chosen, out_dir=tmp_path, generator=generator, **{**SETTINGS, **changed})

    other, solver = Sampling(3, 2.0, 1), Sampling(3, 2.0, 1, sampler="dpmsolver++")
    assert generate(records) == 2
    assert generate(records, sampling=other) == 2
    assert generate(records[:4], sampling=other) == 2
    assert generate(records[:4], sampling=other, batch_size=1) == 0, "the batch size does not change the images"
    assert generate(records[:4], sampling=solver) == 2


def test_bad_settings_are_refused_before_anything_is_dropped(
    generator: Generator, records: list[PromptRecord], tmp_path: Path
) -> None:
    generate_shards(records, out_dir=tmp_path, generator=generator, **SETTINGS)
    with pytest.raises(UserError, match="tapped_step"):
        generate_shards(records, out_dir=tmp_path, generator=generator, **{**SETTINGS, "sampling": Sampling(3, 3.0, 9)})
    assert len(list_shards(tmp_path)) == 2
