"""Stages with less memory than their batches need: what is written is the same, and one line says what happened."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from diffground.data.shards import decode_png, read_samples
from diffground.prompts import read_prompts, write_prompts
from diffground.reproduction.smoke import build_components
from tests.unit.stages.test_stage import assert_one_line, call, change, clone

__all__ = ["clone"]


def images(folder):
    samples = list(read_samples(folder / "data/generated/train"))
    return np.stack([decode_png(sample.members["image.png"]).astype(int) for sample in samples])


def test_generate_with_a_limit_on_memory_makes_the_same_images_or_says_what_to_raise(clone):
    build_components(clone / "models/smoke")
    assert call(clone, "sample_prompts").returncode == 0
    for name in ("train", "test"):
        path = clone / f"data/prompts/{name}.jsonl"
        write_prompts(path, read_prompts(path)[:10])
    change(clone, runtime={"max_memory_gib": 0.1})
    assert_one_line(call(clone, "generate"), "runtime.max_memory_gib is 0.1, but the process takes ")
    assert not list((clone / "data/generated").rglob("*.tar"))
    change(clone, runtime={"max_memory_gib": 16})
    limited = call(clone, "generate")
    assert limited.returncode == 0, limited.stderr
    with_limit = images(clone)
    change(clone, runtime={"max_memory_gib": 0})
    assert call(clone, "generate").returncode == 0
    assert np.array_equal(images(clone), with_limit), "another limit makes no sample again"
    for shard in (clone / "data/generated/train").glob("*.tar"):
        shard.unlink()
    assert call(clone, "generate").returncode == 0
    without_limit = images(clone)
    assert without_limit.shape == (10, 32, 32, 3)
    assert np.abs(with_limit - without_limit).max() <= 1


SMALL_ADDRESS_SPACE = """
import logging, re, resource, sys
from pathlib import Path
import torch
from diffground.diffusion.generate import generate_shards
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.prompts import PromptRecord

logging.basicConfig(format="%(message)s")
generator = Generator.load(sys.argv[1], device=torch.device("cpu"), dtype=torch.float32, image_size=32)
generator.sample(["a photograph of a dog"], [0], Sampling(1, 1.0, 1))
records = [
    PromptRecord(f"test-{i}", "a photograph of a dog", ("dog",), "one_seen", i, "template") for i in range(256)
]
now = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + int(sys.argv[3]) * 2**20,) * 2)
generate_shards(
    records, out_dir=Path(sys.argv[2]), generator=generator, sampling=Sampling(1, 1.0, 1), batch_size=256, shard_size=256
)
"""


def test_a_process_whose_system_refuses_memory_halves_the_batch_and_ends_well(tmp_path):
    build_components(tmp_path / "models")
    arguments = [str(tmp_path / "models/diffusion"), str(tmp_path / "out")]
    ran = subprocess.run(
        [sys.executable, "-c", SMALL_ADDRESS_SPACE, *arguments, "160"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "; 128 samples at once from now on, instead of 256" in ran.stderr
    assert len(list(read_samples(Path(arguments[1])))) == 256
