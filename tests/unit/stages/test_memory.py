"""A stage with `runtime.max_memory_gib`."""

import numpy as np
import torch

from diffground.data.shards import decode_png, read_samples
from diffground.diffusion.generator import Generator
from diffground.prompts import sample_training_prompts, write_prompts
from diffground.reproduction.config import load_params
from diffground.reproduction.smoke import build_components
from diffground.vocabulary import load_vocabulary
from tests.unit.stages.test_stage import assert_one_line, call, change, clone

__all__ = ["clone"]


def test_a_limit_on_memory_changes_no_image_and_one_that_is_too_low_says_what_to_raise(clone):
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
    samples = list(read_samples(clone / "data/generated/train"))
    assert [sample.key for sample in samples] == [record.id for record in records]
    found = np.stack([decode_png(sample.members["image.png"]).astype(int) for sample in samples])
    generator = Generator.load(
        str(clone / "models/smoke/diffusion"), device=torch.device("cpu"), dtype=torch.float32, image_size=32
    )
    sampling = load_params(clone / "params.yaml").generator.sampling
    together = generator.sample([r.prompt for r in records], [r.seed for r in records], sampling).images
    assert np.abs(found - together.astype(int)).max() <= 1
