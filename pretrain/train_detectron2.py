"""Train a small Mask R-CNN of detectron2 on scenes like those of the mini detector; write a model folder.

    . .venv-detectron2/bin/activate
    cd pretrain
    python -m dvc repro sprites                            # the art; needs Node.js
    python train_detectron2.py state/detectron2

It shows that the backend works, and is no part of the mini models: ResNet-18 from random weights, PASCAL's categories
only, and a minute or ten of one core instead of the mini detector's 70.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import HERE, MODELS, TrainingLog, pick_device, read_book, read_params
from detector_data import augmented_batch, make_scenes
from detectron2_model import build, save
from diffusers import AutoencoderKL
from pascal import COCO_NAMES
from torch import Tensor
from vary_sprites import vary_book

from diffground.data.stickers.sprites import SpriteBook
from diffground.detection.small_mask_rcnn import targets_from_index_maps

LEARNING_RATE, WEIGHT_DECAY, WARMUP_STEPS, MAX_GRADIENT_NORM = 2e-3, 0.02, 30, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of the model, written at the end")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--scenes", type=int, default=3000, help="made once, held in memory")
    parser.add_argument("--copies", type=int, default=3, help="varied copies per artwork")
    args = parser.parse_args()
    from detectron2.utils.events import EventStorage

    params = read_params()
    p = params["detector"]
    torch.manual_seed(params["seed"])
    device = pick_device()
    # further concepts are left out: objects without a label would be taught as background
    art = SpriteBook(train=read_book().train, val={}, further={})
    book = vary_book(art, num_copies=args.copies, seed=params["seed"])
    vae = AutoencoderKL.from_pretrained(MODELS / "diffusion" / "vae", torch_dtype=torch.float32).to(device).eval()
    scenes = make_scenes(
        book,
        vae,
        categories=list(book.train),
        num_scenes=args.scenes,
        further_frac=0.0,
        colour_frac=p["colour_frac"],
        image_size=params["image_size"],
        reconstructed_frac=p["reconstructed_frac"],
        latent_noise=p["latent_noise"],
        seed=params["seed"] + 7,
        device=device,
    )
    model = build(len(book.train), device=str(device)).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(params["seed"])
    log = TrainingLog(HERE / "state" / "detectron2.jsonl")
    log.forget_after(-1)
    losses: list[dict[str, float]] = []
    with EventStorage():
        for step in range(1, args.steps + 1):
            rate = LEARNING_RATE * min(1.0, step / WARMUP_STEPS) * (0.5 + 0.5 * np.cos(np.pi * step / args.steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = augmented_batch(scenes, batch_size=args.batch_size, generator=generator)
            parts = model(inputs_of(*batch, min_area_px=p["min_area_px"]))
            optimizer.zero_grad()
            sum(parts.values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            losses.append({name.removeprefix("loss_"): float(value.detach()) for name, value in parts.items()})
            if step % 50 == 0 or step == args.steps:
                log.write(step=step, **{name: float(np.mean([part[name] for part in losses])) for name in losses[0]})
                losses = []
    save(model, args.folder, names=[COCO_NAMES.get(category, category) for category in book.train])


def inputs_of(images: Tensor, index_maps: Tensor, labels: Tensor, *, min_area_px: int) -> list[dict[str, Any]]:
    """A batch of augmented_batch as detectron2's models take it in training."""
    from detectron2.structures import BitMasks, Boxes, Instances

    size = tuple(images.shape[-2:])
    inputs = []
    targets = targets_from_index_maps(index_maps, labels, min_area_px=min_area_px)
    for image, target in zip(255 * images, targets, strict=True):
        instances = Instances(
            size,
            gt_boxes=Boxes(target["boxes"]),
            gt_classes=target["labels"] - 1,  # class 0 is the first category
            gt_masks=BitMasks(target["masks"].bool()),
        )
        inputs.append({"image": image, "instances": instances})
    return inputs


if __name__ == "__main__":
    main()
