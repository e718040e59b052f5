"""Stages with less memory than their batches need: what is written is the same, and one line says what happened."""

import numpy as np

from diffground.data.shards import decode_png, read_samples
from diffground.prompts import sample_training_prompts, write_prompts
from diffground.reproduction.smoke import build_components
from diffground.vocabulary import load_vocabulary
from tests.unit.stages.test_stage import assert_one_line, call, change, clone

__all__ = ["clone"]


def images(folder):
    samples = list(read_samples(folder / "data/generated/train"))
    return np.stack([decode_png(sample.members["image.png"]).astype(int) for sample in samples])


def test_generate_with_a_limit_on_memory_makes_the_same_images_or_says_what_to_raise(clone):
    build_components(clone / "models/smoke")
    records = sample_training_prompts(load_vocabulary("pascal"), num_one=6, num_two=4, seed=0)
    for name in ("train", "test"):
        write_prompts(clone / f"data/prompts/{name}.jsonl", records)
    change(clone, runtime={"max_memory_gib": 0.1})
    assert_one_line(call(clone, "generate"), "runtime.max_memory_gib is 0.1, but the process takes ")
    assert not list((clone / "data/generated").rglob("*.tar"))
    change(clone, runtime={"max_memory_gib": 16})
    limited = call(clone, "generate")
    assert limited.returncode == 0, limited.stderr
    with_limit = images(clone)
    for shard in (clone / "data/generated/train").glob("*.tar"):
        shard.unlink()
    change(clone, runtime={"max_memory_gib": 0})
    assert call(clone, "generate").returncode == 0
    without_limit = images(clone)
    assert without_limit.shape == (10, 32, 32, 3)
    assert np.abs(with_limit - without_limit).max() <= 1
