"""Train a small ResNet to classify the concepts of the training artworks; write models/mini/backbone.

It stands for the ImageNet weights that the paper's MaskFormer starts from: labelled images, without masks.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from common import HERE, MODELS, TrainingLog, mixed_precision, pick_device, read_book, read_params, sample_scene
from detector_data import tint
from torch import Tensor
from tqdm import tqdm
from transformers import ResNetBackbone, ResNetConfig, ResNetForImageClassification
from vary_sprites import vary_book

from diffground.data.stickers.sprites import SpriteBook

_REACH = 0.35  # largest distance of the object from the crop's centre, as a share of half a crop


def make_scenes(
    book: SpriteBook, *, concepts: list[str], num_scenes: int, image_size: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One-object scenes uint8 (N, 3, S, S), the object's class, int64 (N,), and its centre (x, y) in -1..1, (N, 2)."""
    images = np.zeros((num_scenes, image_size, image_size, 3), dtype=np.uint8)
    classes, centres = [], []
    for i in tqdm(range(num_scenes), desc="scenes", mininterval=10):
        scene = sample_scene(book, seed=seed, index=i, num_objects=1, further_frac=0.4, image_size=image_size)
        images[i] = scene.image
        classes.append(concepts.index(scene.sprites[0].category))
        ys, xs = np.nonzero(scene.masks[0])
        centres.append([(side.min() + side.max() + 1) / image_size - 1 for side in (xs, ys)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(classes), torch.tensor(centres)


def random_crops(
    images: Tensor, centres: Tensor, *, crop_px: int, scales: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """uint8 (B, 3, S, S) -> float32 (B, 3, crop_px, crop_px) in 0..1: scaled, mirrored, tinted, the object inside."""
    n = len(images)
    scale = (torch.rand(n, generator=generator) * math.log(scales[1] / scales[0])).exp() * scales[0]
    covered = crop_px / images.shape[-1] / scale  # side of the crop as a share of the scene's
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = mirror * covered, covered
    matrix[:, :, 2] = centres + (torch.rand(n, 2, generator=generator) * 2 - 1) * _REACH * covered[:, None]
    grid = F.affine_grid(matrix, [n, 3, crop_px, crop_px], align_corners=False)
    return tint(F.grid_sample(images.float() / 255, grid, padding_mode="border", align_corners=False), generator)


def main() -> None:
    params = read_params()
    p = params["backbone"]
    torch.manual_seed(params["seed"])
    device = pick_device()
    book = vary_book(read_book(), num_copies=p["copies_per_artwork"], seed=params["seed"])
    concepts = [*book.train, *book.further]
    scenes, classes, centres = make_scenes(
        book, concepts=concepts, num_scenes=p["num_scenes"], image_size=params["image_size"], seed=params["seed"] + 8
    )
    config = ResNetConfig(
        embedding_size=p["embedding_size"],
        hidden_sizes=p["hidden_sizes"],
        depths=p["depths"],
        layer_type="basic",
        out_features=[f"stage{i + 1}" for i in range(len(p["depths"]))],
        num_labels=len(concepts),
        id2label=dict(enumerate(concepts)),
        label2id={concept: i for i, concept in enumerate(concepts)},
    )
    model = ResNetForImageClassification(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=p["learning_rate"], weight_decay=p["weight_decay"])
    generator = torch.Generator().manual_seed(params["seed"])
    log = TrainingLog(HERE / "logs" / "backbone.jsonl")
    start, step, losses, hits = time.monotonic(), 0, [], []
    while (progress := (time.monotonic() - start) / p["budget_s"]) < 1:
        for group in optimizer.param_groups:
            group["lr"] = p["learning_rate"] * min(1.0, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * progress))
        chosen = torch.randint(len(scenes), (p["batch_size"],), generator=generator)
        images = random_crops(
            scenes[chosen],
            centres[chosen],
            crop_px=p["crop_px"],
            scales=(p["min_scale"], p["max_scale"]),
            generator=generator,
        ).to(device)
        target = classes[chosen].to(device)
        with mixed_precision(device):
            logits = model((images - 0.5) / 0.25).logits.float()
        loss = F.cross_entropy(logits, target, label_smoothing=p["label_smoothing"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        losses.append(float(loss.detach()))
        hits.append(float((logits.argmax(dim=1) == target).float().mean()))
        if step % 100 == 0:
            elapsed = time.monotonic() - start
            log.write(step=step, loss=float(np.mean(losses)), accuracy=float(np.mean(hits)), elapsed_s=elapsed)
            losses, hits = [], []
    backbone = ResNetBackbone(config)
    backbone.load_state_dict(model.resnet.state_dict())
    backbone.half().save_pretrained(MODELS / "backbone")


if __name__ == "__main__":
    main()
