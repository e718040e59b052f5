"""What the pretraining scripts share: parameters, scene sampling, state files, the training log."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file

from diffground.data.stickers.scenes import Scene, compose_scene
from diffground.data.stickers.sprites import SpriteBook

HERE = Path(__file__).parent
MODELS = HERE.parent / "models" / "mini"


def read_params() -> dict[str, Any]:
    params = yaml.safe_load((HERE / "params.yaml").read_text())
    torch.set_num_threads(params["threads"])
    return params


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def sample_scene(
    book: SpriteBook, *, seed: int, index: int, num_objects: int, further_frac: float, image_size: int
) -> Scene:
    """Training scene `index`: distinct categories, uniform over the vocabulary, artworks of the training split."""
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
    return compose_scene(rng, sprites=sprites, image_size=image_size)


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


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
    """One JSON object a line, appended; survives a resume."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def forget_after(self, step: int) -> None:
        """Drop what a killed run wrote past the state it left: those steps are made again."""
        if self._path.exists():
            lines = [line for line in self._path.read_text().splitlines() if json.loads(line)["step"] <= step]
            self._path.write_text("".join(line + "\n" for line in lines))

    def write(self, **values: float) -> None:
        record = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(time.strftime("%H:%M:%S"), json.dumps(record), flush=True)
