"""Train the judge on scenes of one to three objects, a share of them reconstructed by the generator's VAE.

Its scenes and varied artworks come from other seeds than those of generator and detector. It is not shipped: only
the state is written. Started again, the script resumes from it. The budget is wall-clock training time over all runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    HERE,
    MODELS,
    TrainingLog,
    load_state,
    mixed_precision,
    pick_device,
    read_book,
    read_params,
    sample_scene,
)
from detector_data import reconstruct, tint
from diffusers import AutoencoderKL
from judge import Judge
from torch import Tensor
from tqdm import tqdm
from training_state import TrainingState
from vary_sprites import vary_book

from diffground.data.stickers.backgrounds import PLACES
from diffground.data.stickers.colours import COLOURS
from diffground.data.stickers.sprites import SpriteBook

STATE = HERE / "state" / "judge.safetensors"
_SEED_OFFSET = 20
_UNKNOWN = -1


@dataclass(frozen=True)
class JudgeScenes:
    """`images` uint8 (N, 3, S, S), of the judge's input size; `present` bool (N, K); `colours` int64 (N,), 0 for none,
    1 + c for word c, -1 to be ignored; `places` int64 (N,)."""

    images: Tensor
    present: Tensor
    colours: Tensor
    places: Tensor


def build_judge(book: SpriteBook, p: dict[str, Any]) -> Judge:
    """Random weights; the concepts in the order of `book`. `p`: section judge of params.yaml."""
    return Judge(
        concepts=[*book.train, *book.further],
        colours=list(COLOURS),
        places=list(PLACES),
        input_size=p["input_size"],
        embedding_size=p["embedding_size"],
        hidden_sizes=p["hidden_sizes"],
        depths=p["depths"],
    )


def load_judge(book: SpriteBook, p: dict[str, Any], device: torch.device) -> Judge:
    """The judge of the last training, with averaged weights. Raises: SystemExit before the first one."""
    if not STATE.is_file():
        raise SystemExit(
            f"{STATE}: missing (it is not committed); run: cd pretrain && dvc unfreeze judge && dvc repro judge"
        )
    judge = build_judge(book, p)
    saved, _ = load_state(STATE)
    for kind in ("model.", "ema."):  # the average has the parameters only
        part = {name.removeprefix(kind): tensor for name, tensor in saved.items() if name.startswith(kind)}
        judge.load_state_dict(part, strict=kind == "model.")
    return judge.to(device).eval()


def make_scenes(
    book: SpriteBook,
    varied: SpriteBook,
    vae: AutoencoderKL,
    judge: Judge,
    *,
    p: dict[str, Any],
    image_size: int,
    seed: int,
    device: torch.device,
) -> JudgeScenes:
    """Scenes of original and of varied artworks, in turn; the first of them become VAE reconstructions.

    A varied artwork may have any colour, so that of one object it is only known which word it was repainted in.
    """
    num = p["num_scenes"]
    images = np.zeros((num, image_size, image_size, 3), dtype=np.uint8)
    present = torch.zeros(num, len(judge.concepts), dtype=torch.bool)
    colours, places = torch.full((num,), _UNKNOWN), torch.zeros(num, dtype=torch.int64)
    for i in tqdm(range(num), desc="scenes", mininterval=10):
        scene = sample_scene(
            varied if i % 2 else book,
            seed=seed,
            index=i,
            num_objects=1 + i // 2 % 3,
            further_frac=p["further_frac"],
            colour_frac=p["colour_frac"],
            image_size=image_size,
        )
        images[i] = scene.image
        present[i, [judge.concepts.index(sprite.category) for sprite in scene.sprites]] = True
        if len(scene.sprites) == 1 and (scene.colours[0] is not None or not i % 2):
            colours[i] = judge.colours.index(scene.colours[0])
        places[i] = judge.places.index(scene.place)
    seen = round(p["reconstructed_frac"] * num)
    images[:seen] = reconstruct(images[:seen], vae, latent_noise=p["latent_noise"], seed=seed, device=device)
    small = [judge.to_input(part.permute(0, 3, 1, 2)) for part in torch.from_numpy(images).split(256)]
    return JudgeScenes(images=torch.cat(small), present=present, colours=colours, places=places)


def augmented_batch(scenes: JudgeScenes, *, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Images float32 (B, 3, S, S) in 0..1 and their `present`, `colours`, `places`; half are mirrored.

    Every other image is tinted, which may turn any colour into another: of these no colour is to be learnt.
    """
    chosen = torch.randint(len(scenes.images), (batch_size,), generator=generator)
    images = scenes.images[chosen].float() / 255
    mirrored = torch.rand(batch_size, generator=generator) < 0.5
    images[mirrored] = images[mirrored].flip(-1)
    colours = scenes.colours[chosen]
    images[::2] = tint(images[::2], generator)
    colours[::2] = _UNKNOWN
    return images, scenes.present[chosen], colours, scenes.places[chosen]


def losses_of(logits: Sequence[Tensor], present: Tensor, colours: Tensor, places: Tensor) -> dict[str, Tensor]:
    """Losses of the three questions, each a mean over the images whose answer is known.

    The concepts' is summed over them. `rank_loss` asks the present ones to come before the others: without it, almost
    all of the first gradient says that everything is absent.
    """
    concept, colour, place = logits
    shown = present.float()  # (B, K)
    known = int((colours != _UNKNOWN).sum())
    return {
        "concept_loss": F.binary_cross_entropy_with_logits(concept, shown, reduction="none").sum(dim=1).mean(),
        "rank_loss": F.cross_entropy(concept, shown / shown.sum(dim=1, keepdim=True)),
        "colour_loss": F.cross_entropy(colour, colours, ignore_index=_UNKNOWN, reduction="sum") / max(1, known),
        "place_loss": F.cross_entropy(place, places),
    }


def main() -> None:
    params = read_params()
    p = params["judge"]
    seed = params["seed"] + _SEED_OFFSET
    torch.manual_seed(seed)
    device = pick_device()
    book = read_book()
    judge = build_judge(book, p).to(device).train()
    vae = AutoencoderKL.from_pretrained(MODELS / "diffusion" / "vae", torch_dtype=torch.float32).to(device).eval()
    scenes = make_scenes(
        book,
        vary_book(book, num_copies=p["copies_per_artwork"], seed=seed),
        vae,
        judge,
        p=p,
        image_size=params["image_size"],
        seed=seed,
        device=device,
    )
    optimizer = torch.optim.AdamW(judge.parameters(), lr=p["learning_rate"], weight_decay=p["weight_decay"])
    state = TrainingState(STATE, judge, optimizer, ema_decay=p["ema_decay"])
    log = TrainingLog(HERE / "logs" / "judge.jsonl")
    log.forget_after(state.step)
    generator = torch.Generator().manual_seed(seed + state.step)
    running: list[dict[str, float]] = []
    last_save = state.elapsed_s
    while (progress := state.elapsed_s / p["budget_s"]) < 1:
        for group in optimizer.param_groups:
            warmup = min(1.0, (state.step + 1) / p["warmup_steps"])
            group["lr"] = p["learning_rate"] * warmup * (0.5 + 0.5 * np.cos(np.pi * progress))
        images, *targets = augmented_batch(scenes, batch_size=p["batch_size"], generator=generator)
        with mixed_precision(device):
            logits = judge(images.to(device))
        losses = losses_of([part.float() for part in logits], *(target.to(device) for target in targets))
        state.descend(sum(losses.values()), max_grad_norm=5.0)
        running.append({name: float(loss.detach()) for name, loss in losses.items()})
        if state.step % 100 == 0:
            means = {name: float(np.mean([part[name] for part in running])) for name in running[0]}
            log.write(step=state.step, **means, elapsed_s=state.elapsed_s, images_seen=state.step * p["batch_size"])
            running = []
        if state.elapsed_s - last_save > p["save_every_s"]:
            state.save()
            last_save = state.elapsed_s
    state.save()


if __name__ == "__main__":
    main()
