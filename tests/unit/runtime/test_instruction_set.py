"""Samples and training steps in child processes at each instruction set that this machine has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffground.errors import UserError
from diffground.runtime.instruction_set import check_instruction_set, limit_instruction_set

ROOT = Path(__file__).parents[3]
CHILD = """
import hashlib, json, sys
from pathlib import Path
from diffground.runtime.instruction_set import check_instruction_set, limit_instruction_set, limits

limit_instruction_set(sys.argv[1])
import torch
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.runtime.device import setup_torch
from diffground.segmentation.maskformer import MaskFormerSegmenter

check_instruction_set(sys.argv[1])
setup_torch(num_threads=1)
cpu = torch.device("cpu")

def digest(*tensors):
    return hashlib.sha256(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)).hexdigest()

def compute():
    generator = Generator.load("models/mini/diffusion", device=cpu, dtype=torch.float32, image_size=128)
    prompts = ["a photograph of a dog", "a photograph of a sofa"]
    samples = generator.sample(prompts, [0, 1], Sampling(2, 3.0, 1))

    model = MaskFormerSegmenter.load(Path("models/mini/segmenter"), device=cpu).model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    masks = [torch.zeros(2, 128, 128) for _ in range(2)]
    for mask in masks:
        mask[0, :64], mask[1, 64:] = 1, 1
    torch.manual_seed(0)
    for _ in range(2):
        optimizer.zero_grad()
        pixels = torch.from_numpy(samples.images).permute(0, 3, 1, 2) / 255
        model(pixel_values=pixels, mask_labels=masks, class_labels=[torch.tensor([0, 3])] * 2).loss.backward()
        optimizer.step()
    return {"sampling": digest(torch.from_numpy(samples.images), samples.latents),
            "training": digest(*model.parameters())}

print(json.dumps({
    "capability": torch.backends.cpu.get_cpu_capability(),
    "limits": limits(),
    "first": compute(),
    "second": compute(),
}))
"""
VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR")

has_avx2 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="the processor has no AVX2"
)


def computed(level):
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, level], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.slow
@has_avx2
def test_each_level_computes_the_same_bytes_each_time(record_property):
    levels = {level: computed(level) for level in ("native", "avx2", "compatible")}
    assert [levels[level]["second"] for level in levels] == [levels[level]["first"] for level in levels]
    assert levels["native"]["limits"] == {}
    assert {levels[level]["capability"] for level in ("avx2", "compatible")} == {"AVX2"}
    for work in ("sampling", "training"):
        alike = {}
        for level, result in levels.items():
            alike.setdefault(result["first"][work], []).append(level)
        stated = "; ".join(" = ".join(names) for names in alike.values())
        record_property(work, stated)
        print(f"{work}: {stated}")  # shown by pytest -rP


def test_a_limit_after_torch_was_imported_is_refused():
    with pytest.raises(RuntimeError, match="before torch is imported"):
        limit_instruction_set("avx2")
    limit_instruction_set("native")


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "AVX2", reason="AVX2 is all that this processor has")
def test_a_limit_without_effect_is_one_line():
    with pytest.raises(UserError, match=r"runtime.instruction_set is 'compatible', but torch computes with"):
        check_instruction_set("compatible")
    check_instruction_set("native")


@has_avx2
def test_a_stage_limits_itself_before_it_imports_torch(tmp_path):
    """stages/_stage.py, imported first, as every stage script does."""
    text = (ROOT / "params.yaml").read_text().replace("instruction_set: native", "instruction_set: avx2")
    (tmp_path / "params.yaml").write_text(text)
    script = "import _stage, torch; print(torch.backends.cpu.get_cpu_capability())"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'stages'}"}
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ran.stdout, ran.returncode) == ("AVX2\n", 0), ran.stderr
