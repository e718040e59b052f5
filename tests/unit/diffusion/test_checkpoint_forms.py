"""Folders as people have them: fp16 variants only, or of some parts; and schedulers that are none of diffusion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from tests.unit.diffusion.architectures import build_sdxl
from tests.unit.diffusion.conftest import IMAGE_SIZE, build_pipeline

CPU = {"device": torch.device("cpu"), "dtype": torch.float32, "image_size": IMAGE_SIZE}
UNET, VAE = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"
TEXT = "text_encoder/model"


def image(folder: Path) -> bytes:
    generator = Generator.load(str(folder), **CPU)
    return bytes(generator.sample(["a photograph of a dog"], [3], Sampling(2, 3.0, 1)).images)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "pipeline"))


def rename(folder: Path, part: str, variant: str = "fp16") -> None:
    (folder / f"{part}.safetensors").rename(folder / f"{part}.{variant}.safetensors")


@pytest.mark.parametrize("parts", [(UNET, VAE, TEXT), (UNET,), (TEXT, VAE)], ids=["all", "UNet", "all but UNet"])
def test_parts_that_are_there_as_fp16_only_are_loaded(checkpoint: Path, copy: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        rename(copy, part)
    assert image(copy) == image(checkpoint)


def test_sharded_fp16_weights_are_loaded(checkpoint: Path, tmp_path: Path) -> None:
    build_pipeline().save_pretrained(tmp_path, variant="fp16", max_shard_size="60KB")
    assert len(list((tmp_path / "unet").glob("*.fp16-*-of-*.safetensors"))) > 1
    assert image(tmp_path) == image(checkpoint)


def test_both_encoders_of_xl_are_loaded_as_fp16(tmp_path: Path) -> None:
    build_sdxl().save_pretrained(tmp_path, variant="fp16")
    generator = Generator.load(str(tmp_path), **{**CPU, "image_size": 128})
    expected = Generator(build_sdxl(), image_size=128, generator_id="")
    assert torch.equal(generator.embed(["a dog"]), expected.embed(["a dog"]))


def test_weights_without_a_variant_go_before_fp16(checkpoint: Path, copy: Path) -> None:
    (copy / f"{UNET}.fp16.safetensors").write_bytes(b"not read")
    assert image(copy) == image(checkpoint)


def test_the_generators_name_follows_its_fp16_weights(copy: Path) -> None:
    rename(copy, UNET)
    before = Generator.load(str(copy), **CPU).generator_id
    other = build_pipeline()
    other.unet.conv_in.weight.data.add_(0.01)
    other.unet.save_pretrained(copy / "unet", variant="fp16")
    assert Generator.load(str(copy), **CPU).generator_id != before


def test_several_variants_without_a_plain_one_are_one_line(copy: Path) -> None:
    shutil.copyfile(copy / f"{UNET}.safetensors", copy / f"{UNET}.non_ema.safetensors")
    rename(copy, UNET)
    with pytest.raises(UserError, match=r"unet has weights of several variants \(fp16, non_ema\)") as caught:
        Generator.load(str(copy), **CPU)
    assert "\n" not in str(caught.value)


def set_scheduler(folder: Path, scheduler: SchedulerMixin) -> None:
    shutil.rmtree(folder / "scheduler")
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (FlowMatchEulerDiscreteScheduler(), "its scheduler is FlowMatchEulerDiscreteScheduler; must be one"),
        (
            DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
            "is DPMSolverMultistepScheduler, which predicts flow_prediction; must be one",
        ),
        (UniPCMultistepScheduler(use_flow_sigmas=True), "its scheduler is UniPCMultistepScheduler, which"),
    ],
)
def test_a_scheduler_of_flow_matching_is_refused(copy: Path, scheduler: SchedulerMixin, said: str) -> None:
    set_scheduler(copy, scheduler)
    with pytest.raises(UserError, match=said) as caught:
        Generator.load(str(copy), **CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kind",
    [
        DDPMScheduler,
        PNDMScheduler,
        LMSDiscreteScheduler,
        EulerAncestralDiscreteScheduler,
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
        HeunDiscreteScheduler,
        KDPM2DiscreteScheduler,
    ],
)
def test_schedulers_of_diffusion_give_the_same_schedule(checkpoint: Path, copy: Path, kind: type) -> None:
    ddim = Generator.load(str(checkpoint), **CPU)
    set_scheduler(copy, kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1))
    other = Generator.load(str(copy), **CPU).scheduler(4)
    assert torch.equal(other.alphas_cumprod, ddim.scheduler(4).alphas_cumprod)
