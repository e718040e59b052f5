"""Train the mini Mask R-CNN on scenes of the 20 categories; write models/mini/detector.

The state is saved as it goes: started again, the script goes on where it was. The budget is wall-clock training time
over all sittings. Its classes carry COCO's label names, like the detectors that it stands for.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from common import HERE, MODELS, TrainingLog, load_state, pick_device, read_params, save_state
from detector_data import augmented_batch, make_scenes
from diffusers import AutoencoderKL
from vary_sprites import vary_book

from diffground.data.stickers.sprites import read_sprites
from diffground.detection.small_mask_rcnn import build_small_mask_rcnn, targets_from_index_maps
from diffground.detection.torchvision_backend import save_small_mask_rcnn
from diffground.vocabulary import load_vocabulary

STATE = HERE / "state" / "detector.safetensors"


def main() -> None:
    params = read_params()
    p = params["detector"]
    torch.manual_seed(params["seed"])
    device = pick_device()
    vocabulary = load_vocabulary("pascal", unseen=())
    book = vary_book(
        read_sprites(HERE / "data" / "sprites.npz"), num_copies=p["copies_per_artwork"], seed=params["seed"]
    )
    vae = AutoencoderKL.from_pretrained(MODELS / "diffusion" / "vae", torch_dtype=torch.float32).to(device).eval()
    scenes = make_scenes(
        book, vae, categories=list(vocabulary.categories), num_scenes=p["num_scenes"], further_frac=p["further_frac"],
        image_size=params["image_size"], reconstructed_frac=p["reconstructed_frac"], latent_noise=p["latent_noise"],
        seed=params["seed"] + 7, device=device,
    )  # fmt: skip
    model_config = {"num_categories": len(vocabulary.categories), "image_size": params["image_size"], **p["model"]}
    model = build_small_mask_rcnn(**model_config).to(device).train()
    names = [vocabulary.detector_names[category] for category in vocabulary.categories]
    weights = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(weights.values(), lr=p["learning_rate"], weight_decay=p["weight_decay"])
    step, elapsed = 0, 0.0
    if STATE.exists():
        saved, numbers = load_state(STATE)
        step, elapsed = int(numbers["step"]), numbers["elapsed_s"]
        model.load_state_dict({k.removeprefix("model."): v for k, v in saved.items() if k.startswith("model.")})
        for name, weight in weights.items():
            optimizer.state[weight] = {
                "step": torch.tensor(float(step)),
                "exp_avg": saved[f"exp_avg.{name}"].to(device),
                "exp_avg_sq": saved[f"exp_avg_sq.{name}"].to(device),
            }

    def save() -> None:
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for name, weight in weights.items():
            tensors |= {f"{k}.{name}": optimizer.state[weight][k] for k in ("exp_avg", "exp_avg_sq")}
        save_state(STATE, tensors, step=step, elapsed_s=elapsed)
        save_small_mask_rcnn(model, MODELS / "detector", category_names=names, model_config=model_config)

    log = TrainingLog(HERE / "logs" / "detector.jsonl")
    generator = torch.Generator().manual_seed(params["seed"] + step)
    losses: list[dict[str, float]] = []
    last_save, tick = elapsed, time.monotonic()
    while (progress := elapsed / p["budget_s"]) < 1:
        for group in optimizer.param_groups:
            warmup = min(1.0, (step + 1) / p["warmup_steps"])
            group["lr"] = p["learning_rate"] * warmup * (0.5 + 0.5 * np.cos(np.pi * progress))
        images, index_maps, labels = augmented_batch(scenes, batch_size=p["batch_size"], generator=generator)
        targets = targets_from_index_maps(index_maps.to(device), labels.to(device), min_area_px=p["min_area_px"])
        with torch.autocast(device.type, torch.bfloat16, enabled=p["bfloat16"]):
            parts = model(list(images.to(device)), targets)
        loss = sum(parts.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 5.0)
        optimizer.step()
        step += 1
        losses.append({name.removeprefix("loss_"): float(value.detach()) for name, value in parts.items()})
        now = time.monotonic()
        elapsed, tick = elapsed + now - tick, now
        if step % 100 == 0:
            means = {name: float(np.mean([part[name] for part in losses])) for name in losses[0]}
            log.write(step=step, **means, elapsed_s=elapsed, images_seen=step * p["batch_size"])
            losses = []
        if elapsed - last_save > p["save_every_s"]:
            save()
            last_save, tick = elapsed, time.monotonic()
    save()


if __name__ == "__main__":
    main()
