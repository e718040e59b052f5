"""A short loop of sampling while the masks form: docs/images/sampling.gif.

    python tools/sampling_loop.py [--out FILE]     # about half a minute on one core

Uses the models of models/mini only. Each frame shows what the generator predicts from the latents of one step, and the
grounding module's masks from the same latents; the last frame shows the finished images. The module was trained on the
last step, so it is least sure of the masks of the first ones. Equal models give equal bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffground.atomic import atomic_file
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.entry_point import run_entry_point
from diffground.grounding.checkpoint import load_grounding, read_defaults
from diffground.grounding.prediction import Grounder, likeliest_word
from diffground.report.gallery import mask_overlay

MODELS = Path("models/mini")
OUT = Path("docs/images/sampling.gif")
"""Not in reports/figures: that folder is an output of stage report, which DVC empties."""
WORDS = (("dog", "sofa"), ("car", "cat"), ("train", "horse"))
"""Of each prompt. Dog, sofa, car and train are unseen categories of profile mini."""
PROMPTS = tuple(f"a photograph of a {first} and a {second}" for first, second in WORDS)
SEEDS = (0, 1, 2)
_PX = 256
_LINE_PX = 24
_STEP_MS, _LAST_MS = 600, 2500


def frames(
    generator: Generator, grounder: Grounder, *, sampling: Sampling, mask_threshold: float
) -> Iterator[Image.Image]:
    """One per step, and the finished images."""
    for step in range(sampling.num_steps, 0, -1):
        # DPM-Solver++ keeps a state, so the latents of each step come from a sampling of their own
        tapped = generator.sample(PROMPTS, SEEDS, replace(sampling, tapped_step=step))
        clean = generator.denoise(tapped.latents, PROMPTS, timestep=tapped.timestep)
        probs = _probs(generator, grounder, tapped.latents, timestep=tapped.timestep)
        title = f"step {sampling.num_steps - step + 1} of {sampling.num_steps}"
        yield _frame(title, generator.decode(clean), probs, mask_threshold=mask_threshold)
    done = generator.sample(PROMPTS, SEEDS, sampling)
    probs = _probs(generator, grounder, done.latents, timestep=done.timestep)
    yield _frame("finished", done.images, probs, mask_threshold=mask_threshold)


def write_loop(path: Path, shown: Sequence[Image.Image]) -> None:
    """Write the frames as a GIF that repeats, the last one shown longer."""
    durations = [_STEP_MS] * (len(shown) - 1) + [_LAST_MS]
    # one palette for all frames: colours that are the same stay the same
    palette = Image.fromarray(np.concatenate([np.asarray(frame) for frame in shown])).quantize(255)
    reduced = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in shown]
    with atomic_file(path) as partial:
        reduced[0].save(
            partial, "GIF", save_all=True, append_images=reduced[1:], duration=durations, loop=0, optimize=True
        )


def _probs(generator: Generator, grounder: Grounder, latents: Tensor, *, timestep: int) -> list[Tensor]:
    size = generator.image_size
    return grounder.probs(latents=latents, prompts=PROMPTS, words=WORDS, timestep=timestep, image_size=size)


def _frame(title: str, images: np.ndarray, probs: Sequence[Tensor], *, mask_threshold: float) -> Image.Image:
    """The images, uint8 (B, H, W, 3), in a row, and below each the same with its masks."""
    canvas = Image.new("RGB", (len(images) * _PX, 2 * _LINE_PX + 2 * _PX), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for i, (image, of_image) in enumerate(zip(images, probs, strict=True)):
        masked = mask_overlay(image, list(likeliest_word(of_image.numpy(), mask_threshold=mask_threshold)))
        draw.text((i * _PX + 4, 4), PROMPTS[i], fill="black", font=font)
        for row, picture in enumerate((image, masked)):
            scaled = Image.fromarray(picture).resize((_PX, _PX), Image.Resampling.NEAREST)
            canvas.paste(scaled, (i * _PX, _LINE_PX + row * _PX))
    draw.text((4, _LINE_PX + 2 * _PX + 4), title, fill="black", font=font)
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write (default: %(default)s)")
    out = parser.parse_args().out
    device = torch.device("cpu")
    module, spec = load_grounding(MODELS / "grounding")
    checkpoint = str(MODELS / "diffusion")
    generator = Generator.load(checkpoint, device=device, dtype=torch.float32, image_size=spec.image_size)
    grounder = Grounder.of(module, spec, folder=MODELS / "grounding", generator=generator, device=device)
    defaults = read_defaults(MODELS / "grounding", spec)
    shown = frames(generator, grounder, sampling=defaults.sampling, mask_threshold=defaults.mask_threshold)
    write_loop(out, list(shown))


if __name__ == "__main__":
    sys.exit(run_entry_point(main, resume_with="python tools/sampling_loop.py"))
