"""Train the AutoencoderKL (factor 4) that defines the generator's latents, on crops of small scenes: base_vae/."""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    BASE_VAE,
    HERE,
    TrainingLog,
    mixed_precision,
    pick_device,
    read_book,
    read_params,
    sample_scene,
    to_tensor,
)
from diffusers import AutoencoderKL


def main() -> None:
    params = read_params()
    p = params["vae"]
    torch.manual_seed(params["seed"])
    device = pick_device()
    book = read_book()
    images = np.stack(
        [
            sample_scene(
                book,
                seed=params["seed"] + 1,
                index=i,
                num_objects=1 + i % 2,
                further_frac=0.3,
                image_size=p["image_size"],
            ).image
            for i in range(p["num_scenes"])
        ]
    )
    held = to_tensor(images[:64]).to(device)
    data = to_tensor(images[64:])
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=p["latent_channels"],
        block_out_channels=p["block_out_channels"],
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=["DownEncoderBlock2D"] * len(p["block_out_channels"]),
        up_block_types=["UpDecoderBlock2D"] * len(p["block_out_channels"]),
        sample_size=p["image_size"],
        mid_block_add_attention=False,
    ).to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=p["learning_rate"], betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(params["seed"])
    log = TrainingLog(HERE / "logs" / "vae.jsonl")
    crop, start, step = p["crop_px"], time.monotonic(), 0
    while (progress := (time.monotonic() - start) / p["budget_s"]) < 1:
        for group in optimizer.param_groups:
            group["lr"] = p["learning_rate"] * min(1.0, (step + 1) / 100, 2.5 * (1 - progress) + 0.01)
        chosen = torch.randint(len(data), (p["batch_size"],), generator=generator)
        corners = torch.randint(p["image_size"] - crop + 1, (p["batch_size"], 2), generator=generator).tolist()
        x = torch.stack([data[i, :, y : y + crop, x : x + crop] for i, (y, x) in zip(chosen, corners, strict=True)]).to(
            device
        )
        with mixed_precision(device):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample.float()
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        edges = F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + 0.5 * edges + p["kl_weight"] * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            with torch.no_grad(), mixed_precision(device):
                mean = vae.encode(held).latent_dist.mean
                psnr = 10 * torch.log10(4 / F.mse_loss(vae.decode(mean).sample.float(), held))
            log.write(step=step, loss=float(loss), kl=float(kl), psnr_db=float(psnr), latent_std=float(mean.std()))
        step += 1
    with torch.no_grad():
        mean = torch.cat(
            [vae.encode(to_tensor(images[i : i + 64]).to(device)).latent_dist.mean for i in range(0, 512, 64)]
        )
        psnr = 10 * torch.log10(4 / F.mse_loss(vae.decode(mean[:64]).sample, held))
    vae.register_to_config(scaling_factor=round(1 / float(mean.std()), 5))
    vae.eval().half().cpu().save_pretrained(BASE_VAE)
    log.write(step=step, final_psnr_db=float(psnr), scaling_factor=vae.config.scaling_factor)


if __name__ == "__main__":
    main()
