"""Train the mini Mask R-CNN on scenes of all concepts; write models/mini/detector.

The state is saved regularly; started again, the script resumes from it. The budget is wall-clock training time over all
runs. It starts from the weights of models/mini/backbone, as others start from ImageNet's. Its classes have COCO's label
names, like the detectors that it stands for.
"""

from __future__ import annotations

import numpy as np
import torch
from common import (
    HERE,
    MODELS,
    TrainingLog,
    mixed_precision,
    pick_device,
    read_book,
    read_params,
)
from detector_data import augmented_batch, make_scenes
from diffusers import AutoencoderKL
from pascal import COCO_NAMES
from training_state import TrainingState
from transformers import ResNetBackbone
from vary_sprites import vary_book

from diffground.detection.small_mask_rcnn import build_small_mask_rcnn, targets_from_index_maps
from diffground.detection.torchvision_backend import save_small_mask_rcnn

STATE = HERE / "state" / "detector.safetensors"


def main() -> None:
    params = read_params()
    p = params["detector"]
    torch.manual_seed(params["seed"])
    device = pick_device()
    book = vary_book(read_book(), num_copies=p["copies_per_artwork"], seed=params["seed"])
    concepts = [*book.train, *book.further]
    vae = AutoencoderKL.from_pretrained(MODELS / "diffusion" / "vae", torch_dtype=torch.float32).to(device).eval()
    scenes = make_scenes(
        book,
        vae,
        categories=concepts,
        num_scenes=p["num_scenes"],
        further_frac=p["further_frac"],
        colour_frac=p["colour_frac"],
        image_size=params["image_size"],
        reconstructed_frac=p["reconstructed_frac"],
        latent_noise=p["latent_noise"],
        seed=params["seed"] + 7,
        device=device,
    )
    trunk = {key: params["backbone"][key] for key in ("embedding_size", "hidden_sizes", "depths")}
    model_config = {"num_categories": len(concepts), "image_size": params["image_size"], **trunk, **p["model"]}
    model = build_small_mask_rcnn(**model_config)
    model.backbone.resnet.load_state_dict(ResNetBackbone.from_pretrained(MODELS / "backbone").float().state_dict())
    model.to(device).train()
    names = [COCO_NAMES.get(concept, concept) for concept in concepts]
    trained = list(model.backbone.resnet.parameters())
    fresh = [weight for name, weight in model.named_parameters() if not name.startswith("backbone.resnet.")]
    groups = [{"params": fresh, "factor": 1.0}, {"params": trained, "factor": p["trunk_lr_factor"]}]
    optimizer = torch.optim.AdamW(groups, weight_decay=p["weight_decay"])
    state = TrainingState(STATE, model, optimizer, ema_decay=p["ema_decay"])

    def export() -> None:
        save_small_mask_rcnn(model, MODELS / "detector", category_names=names, model_config=model_config)

    log = TrainingLog(HERE / "logs" / "detector.jsonl")
    log.forget_after(state.step)
    generator = torch.Generator().manual_seed(params["seed"] + state.step)
    losses: list[dict[str, float]] = []
    last_save = state.elapsed_s
    while (progress := state.elapsed_s / p["budget_s"]) < 1:
        for group in optimizer.param_groups:
            warmup = min(1.0, (state.step + 1) / p["warmup_steps"])
            group["lr"] = group["factor"] * p["learning_rate"] * warmup * (0.5 + 0.5 * np.cos(np.pi * progress))
        images, index_maps, labels = augmented_batch(scenes, batch_size=p["batch_size"], generator=generator)
        targets = targets_from_index_maps(index_maps.to(device), labels.to(device), min_area_px=p["min_area_px"])
        with mixed_precision(device):
            parts = model(list(images.to(device)), targets)
        state.descend(sum(parts.values()), max_grad_norm=5.0)
        losses.append({name.removeprefix("loss_"): float(value.detach()) for name, value in parts.items()})
        if state.step % 100 == 0:
            means = {name: float(np.mean([part[name] for part in losses])) for name in losses[0]}
            log.write(step=state.step, **means, elapsed_s=state.elapsed_s, images_seen=state.step * p["batch_size"])
            losses = []
        if state.elapsed_s - last_save > p["save_every_s"]:
            state.save()
            export()
            last_save = state.elapsed_s
    state.save()
    state.take_average()
    export()


if __name__ == "__main__":
    main()
