"""Single files in the original layout give the images of the folder that they were made of, without network."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from diffground import GroundedPipeline
from diffground.diffusion.checkpoint import generator_id
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from tests.unit.diffusion.architectures import IMAGE_SIZE, build_sd1, build_sd2, build_sdxl
from tests.unit.diffusion.original_layout import original_weights

CPU = {"device": torch.device("cpu"), "dtype": torch.float32, "image_size": IMAGE_SIZE}
PROMPTS = ["a photograph of a dog"]
WEIGHTS = ("*.safetensors", "*.bin")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def written(build: Callable[[], DiffusionPipeline], folder: Path) -> tuple[Path, Path, Path]:
    """A pipeline folder, the same as a single file, and its folder without weights."""
    pipeline = build()
    pipeline.save_pretrained(folder / "pipeline")
    save_file(original_weights(pipeline), folder / "model.safetensors")
    shutil.copytree(folder / "pipeline", folder / "configs", ignore=shutil.ignore_patterns(*WEIGHTS))
    return folder / "pipeline", folder / "model.safetensors", folder / "configs"


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return written(build_sd1, tmp_path_factory.mktemp("sd1"))


@pytest.mark.parametrize("build", [build_sd1, build_sd2, build_sdxl])
def test_a_file_gives_the_images_of_its_folder(build: Callable[[], DiffusionPipeline], tmp_path: Path) -> None:
    folder, file, configs = written(build, tmp_path)
    expected = Generator.load(str(folder), **CPU)
    generator = Generator.load(str(file), **CPU, config_from=str(configs))
    images = generator.sample(PROMPTS, [3], Sampling(2, 4.0, 1)).images
    assert images.std() > 10
    np.testing.assert_array_equal(images, expected.sample(PROMPTS, [3], Sampling(2, 4.0, 1)).images)


def test_the_folder_is_said_in_one_line(sd1: tuple[Path, Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    _, file, configs = sd1
    with caplog.at_level("INFO", logger="diffground"):
        Generator.load(str(file), **CPU, config_from=str(configs))
    said = [record.getMessage() for record in caplog.records if record.name.startswith("diffground")]
    assert said == [f"{file}: configs, tokenizer and scheduler (predicts epsilon) are those of {configs}"]


@pytest.mark.parametrize("build", [build_sd2, build_sdxl])
def test_configs_of_another_kind_are_one_line(
    build: Callable[[], DiffusionPipeline], sd1: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    build().save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"does not fit the configs of generator.config_from") as caught:
        Generator.load(str(sd1[1]), **CPU, config_from=str(tmp_path / "other"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "start", ["model.diffusion_model.middle_block.1", "first_stage_model.decoder.up.0", "cond_stage_model"]
)
def test_a_file_without_some_of_the_weights_is_one_line(
    start: str, sd1: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    tensors = load_file(sd1[1])
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(start)}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=r"does not fit the configs of generator.config_from") as caught:
        Generator.load(str(tmp_path / "part.safetensors"), **CPU, config_from=str(sd1[2]))
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_line(sd1: tuple[Path, Path, Path], tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(sd1[1].read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cut.safetensors") as caught:
        Generator.load(str(tmp_path / "cut.safetensors"), **CPU, config_from=str(sd1[2]))
    assert "\n" not in str(caught.value)


def test_a_file_without_configs_says_what_to_set(sd1: tuple[Path, Path, Path], tmp_path: Path) -> None:
    folder, file, configs = sd1
    for checkpoint, config_from, message in (
        (file, "", "set generator.config_from to a diffusers pipeline folder of the same kind"),
        (file, str(tmp_path), "has no model_index.json"),
        (folder, str(configs), "is only for a single file"),
    ):
        with pytest.raises(UserError, match=message):
            Generator.load(str(checkpoint), **CPU, config_from=config_from)


def test_the_generators_name_is_of_the_file_and_the_configs(sd1: tuple[Path, Path, Path], tmp_path: Path) -> None:
    folder, file, configs = sd1
    name = generator_id(str(file), config_from=str(configs))
    assert name == generator_id(str(file), config_from=str(folder)), "weights of that folder are not read"
    other = shutil.copytree(configs, tmp_path / "configs")
    scheduler = other / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
    assert generator_id(str(file), config_from=str(other)) != name
    assert generator_id(str(folder)) != name


def test_the_public_pipeline_takes_a_file(sd1: tuple[Path, Path, Path]) -> None:
    _, file, configs = sd1
    pipe = GroundedPipeline.from_pretrained(file, grounding=None, device="cpu", config_from=configs)
    assert pipe.generator.generator_id == generator_id(str(file), config_from=str(configs))
