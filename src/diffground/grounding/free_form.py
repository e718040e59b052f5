"""Any prompt, any words in it: one image and a mask for each word, without a category table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diffground.config import Params
from diffground.data.palette import VOC_PALETTE
from diffground.data.shards import encode_mask, encode_png
from diffground.diffusion.generator import Generator
from diffground.errors import UserError
from diffground.grounding.prediction import Grounder
from diffground.prompts import token_spans
from diffground.runtime.device import pick_dtype, setup

_MIN_SIDE_PX = 256
"""Small images are enlarged to at least this side in the overlay."""
_OPACITY = 0.55


def ground_image(
    prompt: str, words: Sequence[str], *, seed: int, grounding: Path, out: Path, params: Params
) -> list[Path]:
    """Sample one image and write `out` (the image beside its masks), and next to it the image and a mask a word.

    grounding: model folder, as stage train_grounding or `diffground import-released` writes it.
    `out` "cow.png" gives cow.png, cow.image.png and cow.<word>.png for each word. Returns the files written.
    Raises: UserError for a word that the prompt does not hold, and when generator or grounding module is missing.
    """
    if out.suffix.lower() != ".png":
        raise UserError(f"--out must end in .png, got '{out}'")
    repeated = sorted({word for word in words if list(words).count(word) > 1})
    if repeated:
        raise UserError(f"--category names '{repeated[0]}' twice; name it once")
    p = params.generator
    device = setup(params.runtime)
    generator = Generator.load(p.checkpoint, device=device, dtype=pick_dtype(p.dtype, device), image_size=p.image_size)
    for word, positions in zip(words, token_spans(generator.tokenizer, prompt, words), strict=True):
        if not positions:
            raise UserError(f"the prompt '{prompt}' does not contain the words '{word}'; name them as they stand there")
    grounder = Grounder.load(grounding, generator=generator, device=device)
    samples = generator.sample(
        [prompt], [seed], num_steps=p.num_steps, guidance_scale=p.guidance_scale, tapped_step=p.tapped_step
    )
    probs = grounder.probs(
        latents=samples.latents,
        prompts=[prompt],
        words=[list(words)],
        timestep=samples.timestep,
        image_size=p.image_size,
    )[0].numpy()  # (Q, H, W)
    masks = resolve_overlaps(probs, mask_threshold=params.grounding.mask_threshold)
    contents = {
        out.with_suffix(f".{word.replace(' ', '_')}.png"): encode_mask(masks[i]) for i, word in enumerate(words)
    }
    contents[out.with_suffix(".image.png")] = encode_png(samples.images[0])
    contents[out] = encode_png(draw_masks(samples.images[0], masks))
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        path.write_bytes(content)
    for i, word in enumerate(words):
        print(f"{word}: {masks[i].mean():.1%} of the image, highest probability {probs[i].max():.2f}")
    print(f"{out}: image and masks")
    return list(contents)


def resolve_overlaps(probs: np.ndarray, *, mask_threshold: float) -> np.ndarray:
    """A pixel goes to its likeliest word if that reaches the threshold: float (Q, H, W) -> disjoint bool (Q, H, W)."""
    likeliest = probs.argmax(axis=0)  # (H, W)
    return (np.arange(len(probs))[:, None, None] == likeliest) & (probs >= mask_threshold)


def draw_masks(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The image, and beside it the image with mask i in colour i + 1 of the VOC palette.

    Args: image uint8 (H, W, 3); masks bool (Q, H, W). Returns: uint8 (k H, 2 k W, 3), enlarged by a whole number k.
    """
    painted = image.astype(np.float32)
    for i, mask in enumerate(masks):
        colour = VOC_PALETTE[(i + 1) % len(VOC_PALETTE)]
        painted[mask] = (1 - _OPACITY) * painted[mask] + _OPACITY * colour
    pair = np.concatenate([image, painted.round().astype(np.uint8)], axis=1)
    factor = -(-_MIN_SIDE_PX // image.shape[0])
    enlarged = Image.fromarray(pair).resize((pair.shape[1] * factor, pair.shape[0] * factor), Image.Resampling.NEAREST)
    return np.asarray(enlarged)
