"""Common parts of the pretraining scripts: parameters, scene sampling, state files, the training log."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from diffground.data.stickers.colours import COLOURS
from diffground.data.stickers.scenes import MIRRORED_FRAC, Scene, compose_scene
from diffground.data.stickers.sprites import SpriteBook, read_sprites

HERE = Path(__file__).parent
MODELS = HERE.parent / "models" / "mini"
BASE_VAE = HERE / "base_vae"
SPRITES = HERE / "data" / "sprites.npz"
_CHROMA_GAIN = 2.0  # brings chroma to about the spread of the other channels
_CHROMA_LOG_VARIANCE = -6.0


def read_params() -> dict[str, Any]:
    params = yaml.safe_load((HERE / "params.yaml").read_text())
    torch.set_num_threads(params["threads"])
    return params


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 autocast where it is faster than float32: on a GPU and on a CPU with AMX."""
    fast = device.type != "cpu" or bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def read_book() -> SpriteBook:
    """The artworks of all trainings, as prepare_sprites.py wrote them."""
    return read_sprites(SPRITES)


def sample_scene(
    book: SpriteBook,
    *,
    seed: int,
    index: int,
    num_objects: int,
    further_frac: float,
    image_size: int,
    colour_frac: float = 0.0,
    mirrored_frac: float = MIRRORED_FRAC,
) -> Scene:
    """Training scene `index`: distinct categories, uniform over the vocabulary, artworks of the training split.

    An object is a further concept with chance `further_frac` and repainted in a named colour with `colour_frac`.
    """
    rng = np.random.default_rng([seed, index])
    categories, further = list(book.train), list(book.further)
    sprites, used = [], set()
    while len(sprites) < num_objects:
        from_further = rng.random() < further_frac
        pool, source = (further, book.further) if from_further else (categories, book.train)
        category = str(rng.choice(pool))
        if category not in used:
            used.add(category)
            sprites.append(source[category][rng.integers(len(source[category]))])
    colours = [str(rng.choice(list(COLOURS))) if rng.random() < colour_frac else None for _ in sprites]
    return compose_scene(rng, sprites=sprites, colours=colours, image_size=image_size, mirrored_frac=mirrored_frac)


def to_tensor(images: np.ndarray, device: torch.device | None = None) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in -1..1 on `device`, None for the CPU."""
    # moved as bytes: a quarter of the traffic, and a GPU converts them at once
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def load_base_vae(device: torch.device) -> AutoencoderKL:
    """The autoencoder of train_vae.py, whose latents the generator is trained on.

    The committed weights are the first generation's autoencoder, whose decoder was tuned further and is unused here.
    """
    return AutoencoderKL.from_pretrained(BASE_VAE, torch_dtype=torch.float32).to(device).eval()


@torch.no_grad()
def scene_moments(images: np.ndarray, vae: AutoencoderKL) -> torch.Tensor:
    """Target moments of the latents of scenes: mean and log variance, float32 (N, 2 (C + 2), h, w), not yet scaled.

    The first channels are those of `vae`, the base autoencoder, for the scenes averaged down to its image size. It has
    seen few colours and keeps less of them than of shapes, so two channels of plain chroma follow: blue against yellow
    and red against green, averaged over the pixels of a latent. `images`: uint8 (N, H, W, 3).
    """
    pixels = to_tensor(images, vae.device)
    small = F.interpolate(pixels, size=vae.config.sample_size, mode="area")
    with mixed_precision(vae.device):
        mean, log_variance = vae.encode(small).latent_dist.parameters.float().chunk(2, dim=1)
    red, green, blue = F.interpolate(pixels, size=mean.shape[-1], mode="area").unbind(dim=1)
    chroma = _CHROMA_GAIN * torch.stack([blue - (red + green) / 2, red - green], dim=1)
    certain = torch.full_like(chroma, _CHROMA_LOG_VARIANCE)
    return torch.cat([mean, chroma, log_variance, certain], dim=1)


def save_state(path: Path, tensors: dict[str, torch.Tensor], **numbers: float) -> None:
    """Write a resumable state: one safetensors file, numbers in its metadata, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(
        {k: v.contiguous() for k, v in tensors.items()}, partial, metadata={k: repr(v) for k, v in numbers.items()}
    )
    partial.replace(path)


def load_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        numbers = {k: float(v) for k, v in (file.metadata() or {}).items()}
    return load_file(path), numbers


class TrainingLog:
    """One JSON object per line, appended; it is kept when a training resumes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def forget_after(self, step: int) -> None:
        """Drop entries that a killed run wrote after its last saved state: those steps are repeated."""
        if self._path.exists():
            lines = [line for line in self._path.read_text().splitlines() if json.loads(line)["step"] <= step]
            self._path.write_text("".join(line + "\n" for line in lines))

    def write(self, **values: Any) -> None:
        record = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(time.strftime("%H:%M:%S"), json.dumps(record), flush=True)
