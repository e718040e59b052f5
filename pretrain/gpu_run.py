"""What gpu.py does on the GPU machine: scenes, quality before, training, quality after."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from common import HERE, MODELS, TrainingLog, load_base_vae, read_params
from diffusion_parts import Parts, export_pipeline, load_parts
from evaluate_quality import draw_samples
from gpu_quality import LEFT_OUT, QualityCheck, as_table
from gpu_scenes import SceneComposer
from latents import encode_scenes, latents_key, read_latents, write_latents
from torch import Tensor
from train_diffusion import denoising_losses, train
from training_state import TrainingState
from transformers.utils import logging

from benchmarks._record import machine
from diffground.atomic import atomic_file
from diffground.data.stickers.sprites import SpriteBook, read_sprites
from diffground.errors import UserError, in_one_line
from diffground.reproduction.metrics import read_metrics, write_metrics

_TINY = {
    "num_scenes": 96,
    "batch_size": 4,
    "max_steps": 6,
    "warmup_steps": 2,
    "save_every_s": 0.0,
    "log_every_steps": 1,
    "num_images": 20,
    "images_at_once": 10,
    "num_steps": 4,
    "threads": 1,
}
_RETURNED = (
    "diffusion/unet/*.safetensors*",
    "diffusion/text_encoder/*.safetensors*",
    "quality.json",
    "log.jsonl",
    "samples.png",
)
"""Of the work folder: what is copied to --out."""


def run(
    *, out: Path, work: Path, sprites: Path, device_name: str, tiny: bool, minutes: float | None, start_s: float
) -> None:
    """See gpu.py. `start_s`: of time.monotonic(), the beginning of the command.

    Raises: UserError for a GPU that is not there, artworks that cannot be read, a `work` folder of another training,
    and too little time.
    """
    device = torch.device(device_name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU; give --device cpu with --tiny")
    logging.disable_progress_bar()
    params = read_params()
    p = params["diffusion"] | {"max_steps": math.inf, **params["gpu"]} | (_TINY if tiny else {})
    params["scenes"] |= {"num_train": p["num_scenes"]}
    params["evaluation"] |= {"batch_size": p["images_at_once"]} | ({"num_steps": p["num_steps"]} if tiny else {})
    deadline_s = start_s + 60 * (p["minutes"] if minutes is None else minutes)
    record = begin_record(work, tiny=tiny, device=device)
    book = read_artworks(sprites)
    with ExitStack() as stack:
        # composes while this process measures and compiles
        latents_of = scene_latents(stack, book, params, p, sprites=sprites, path=work / "latents.safetensors")
        torch.backends.cudnn.benchmark = True
        check = QualityCheck(book, params, num_images=p["num_images"], device=device)
        if record["before"] is None:
            began_s = time.monotonic()
            record["before"], _ = check.of_pipeline(MODELS / "diffusion")
            record["check_s"] = time.monotonic() - began_s
            record |= {"real": check.of_real_scenes(), "num_prompts": check.num_prompts()}
            keep(record, work, out)
        parts = load_parts(MODELS / "diffusion", device)
        denoise = compiled(parts, p) if device.type == "cuda" else parts.unet
        latents, captions = latents_of(start_s + p["scenes_s"], device)
    torch.set_num_threads(p["threads"])
    record["num_scenes"] = len(captions)
    token_ids = parts.token_ids(captions).to(device)
    left_s = deadline_s - time.monotonic() - (1.5 * record["check_s"] + 10)
    fit(parts, denoise, latents, token_ids, p=p, left_s=left_s, seed=params["seed"], record=record, work=work, out=out)
    record["after"], images = check.of_pipeline(work / "diffusion")
    record["command_s"] = time.monotonic() - start_s
    with atomic_file(work / "samples.png") as partial:
        draw_samples(check.asked, images).save(partial, format="PNG", optimize=True)
    keep(record, work, out)
    print(report(record), flush=True)


def begin_record(work: Path, *, tiny: bool, device: torch.device) -> dict[str, Any]:
    """quality.json of `work`, or a new one. Raises: UserError for that of another training."""
    weights = MODELS / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors"
    about = {"start_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), "tiny": tiny}
    if (work / "quality.json").exists():
        record = read_metrics("quality", folder=work)
        if {name: record.get(name) for name in about} != about:
            raise UserError(
                f"--work {work}: holds a training from other weights than models/mini/diffusion, or one with another "
                "--tiny; delete it or give another folder"
            )
        return record | {"after": None}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor only"
    ran_on = {**machine(num_threads=1), "device": name}
    return {**about, "left_out": LEFT_OUT, "machine": ran_on, "before": None, "after": None}


def read_artworks(sprites: Path) -> SpriteBook:
    """Raises: UserError for a file that is something else."""
    try:
        return read_sprites(sprites)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{sprites}: not the artworks of prepare_sprites.py ({in_one_line(str(error))})") from None


def scene_latents(
    stack: ExitStack, book: SpriteBook, params: dict[str, Any], p: dict[str, Any], *, sprites: Path, path: Path
) -> Callable[[float, torch.device], tuple[Tensor, list[str]]]:
    """A function of a deadline and a device that gives latents and captions as encode_scenes does.

    Where `path` does not have them, other processes begin to compose scenes now.
    """
    vae = load_base_vae(torch.device("cpu"))
    key = latents_key(params, vae, sprites=sprites)
    kept = read_latents(path, key)
    if kept is not None:
        latents, captions = kept
        return lambda _deadline_s, device: (latents.to(device), captions)
    num_workers = max(1, len(os.sched_getaffinity(0)) - 2)
    composer = SceneComposer(book, params, num_scenes=p["num_scenes"], num_workers=num_workers)
    stack.callback(composer.stop)

    def collect(deadline_s: float, device: torch.device) -> tuple[Tensor, list[str]]:
        encoded = encode_scenes(composer.until(deadline_s), vae.to(device))
        write_latents(path, key, *encoded)
        return encoded

    return collect


def compiled(parts: Parts, p: dict[str, Any]) -> Callable[..., tuple[Tensor, ...]]:
    """The compiled UNet, after one pass back and forth; the UNet itself where torch cannot compile it."""
    config, device = parts.unet.config, parts.unet.device
    clean = torch.zeros(p["batch_size"], config.in_channels, config.sample_size, config.sample_size, device=device)
    ids = torch.zeros(len(clean), parts.tokenizer.model_max_length, dtype=torch.int64, device=device)
    denoise = torch.compile(parts.unet)
    try:
        losses, _ = denoising_losses(
            denoise, parts.scheduler, clean, parts.text_encoder, ids, torch.Generator(device).manual_seed(0)
        )
        losses.mean().backward()
    except Exception as error:  # whatever the compiler or its tools raise: the training is slower without it, not wrong
        print(f"torch.compile: failed, training without it ({in_one_line(str(error))})", file=sys.stderr, flush=True)
        denoise = parts.unet
    parts.trained().zero_grad()
    return denoise


def fit(
    parts: Parts,
    denoise: Callable[..., tuple[Tensor, ...]],
    latents: Tensor,
    token_ids: Tensor,
    *,
    p: dict[str, Any],
    left_s: float,
    seed: int,
    record: dict[str, Any],
    work: Path,
    out: Path,
) -> None:
    """Train for `left_s` seconds, saving included, from the state in `work` where there is one.

    Raises: UserError where no time is left.
    """
    if left_s <= 0:
        raise UserError("--minutes: scenes and quality checks leave no time for training; give more")
    optimizer = parts.optimizer(p["learning_rate"])
    state = TrainingState(work / "state.safetensors", parts.trained(), optimizer, ema_decay=p["ema_decay"])
    began_s, before_s, before_steps = time.monotonic(), state.elapsed_s, state.step

    def progress() -> float:
        """Of all sittings: one that resumes lowers the learning rate only at its own end."""
        by_time = (before_s + time.monotonic() - began_s) / (before_s + left_s)
        return max(by_time, (state.step - before_steps) / p["max_steps"])

    def save() -> None:
        state.save()
        write_pipeline(work / "diffusion", parts, state.average)
        record.update(sizes_of_training(state, p))
        keep(record, work, out)

    train(
        parts,
        latents,
        token_ids,
        p=p,
        denoise=denoise,
        state=state,
        optimizer=optimizer,
        progress=progress,
        seed=seed,
        log=TrainingLog(work / "log.jsonl"),
        log_every_steps=p["log_every_steps"],
        save=save,
    )


def sizes_of_training(state: TrainingState, p: dict[str, Any]) -> dict[str, Any]:
    last = json.loads((HERE / "logs" / "diffusion.jsonl").read_text().splitlines()[-1])
    num_samples = state.step * p["batch_size"]
    return {
        "num_steps": state.step,
        "batch_size": p["batch_size"],
        "num_samples": num_samples,
        "times_the_samples_before": num_samples / (last["step"] * last["batch_size"]),
        "training_s": state.elapsed_s,
    }


def write_pipeline(folder: Path, parts: Parts, average: dict[str, Tensor]) -> None:
    """The complete pipeline; each of its files is replaced as a whole."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    export_pipeline(partial, parts, average)
    shutil.copytree(MODELS / "diffusion" / "vae", partial / "vae")
    for path in [path for path in partial.rglob("*") if path.is_file()]:
        target = folder / path.relative_to(partial)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(partial)


def keep(record: dict[str, Any], work: Path, out: Path) -> None:
    """Write the record, and copy what --out gets so far."""
    write_metrics("quality", record, folder=work)
    for pattern in _RETURNED:
        for path in work.glob(pattern):
            with atomic_file(out / path.relative_to(work)) as partial:
                shutil.copyfile(path, partial)


def report(record: dict[str, Any]) -> str:
    return (
        f"{record['num_steps']} steps of {record['batch_size']}, {record['num_samples']} samples "
        f"({record['times_the_samples_before']:.2g} times those of today's weights), {record['num_scenes']} scenes, "
        f"{record['command_s']:.0f} s\n\n{as_table(record).to_markdown()}\n{record['left_out']}"
    )
