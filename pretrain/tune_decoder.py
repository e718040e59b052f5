"""Sharpen the VAE decoder on whole scenes, the encoder frozen: latents, and what was trained on them, stay valid."""

from __future__ import annotations

import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from common import HERE, MODELS, TrainingLog, pick_device, read_params, sample_scene, to_tensor
from diffusers import AutoencoderKL

from diffground.data.stickers.sprites import read_sprites


def main() -> None:
    params = read_params()
    p = params["decoder"]
    torch.manual_seed(params["seed"])
    device = pick_device()
    book = read_sprites(HERE / "data" / "sprites.npz")
    images = np.stack(
        [
            sample_scene(
                book,
                seed=params["seed"] + 4,
                index=i,
                num_objects=1 + i % 2,
                further_frac=0.2,
                image_size=params["image_size"],
            ).image
            for i in range(p["num_scenes"])
        ]
    )
    vae = AutoencoderKL.from_pretrained(MODELS / "diffusion" / "vae", torch_dtype=torch.float32).to(device)
    with torch.no_grad():
        batches = [to_tensor(images[i : i + 64]).to(device) for i in range(0, len(images), 64)]
        latents = torch.cat([vae.encode(x).latent_dist.mean for x in batches])
    pixels = torch.cat(batches)
    num_held = 64
    weights = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    ema = [w.detach().clone() for w in weights]
    optimizer = torch.optim.AdamW(weights, lr=p["learning_rate"], betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(params["seed"])
    log = TrainingLog(HERE / "logs" / "decoder.jsonl")

    def held_psnr() -> float:
        with torch.no_grad():
            return float(-10 * torch.log10(F.mse_loss(vae.decode(latents[:num_held]).sample, pixels[:num_held]) / 4))

    start, step = time.monotonic(), 0
    while (progress := (time.monotonic() - start) / p["budget_s"]) < 1:
        for group in optimizer.param_groups:
            group["lr"] = p["learning_rate"] * min(1.0, (step + 1) / 50, 2 * (1 - progress) + 0.01)
        chosen = num_held + torch.randint(len(latents) - num_held, (p["batch_size"],), generator=generator)
        z = latents[chosen]
        z = z + p["latent_noise"] * torch.randn(z.shape, generator=generator).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            y = vae.decode(z).sample.float()
        x = pixels[chosen]
        edges = F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))
        loss = F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 0.5 * edges
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        torch._foreach_lerp_(ema, [w.detach() for w in weights], 1 - min(0.995, (1 + step) / (10 + step)))
        if step % 200 == 0:
            log.write(step=step, loss=float(loss.detach()), psnr_db=held_psnr())
        step += 1
    with torch.no_grad():
        for weight, average in zip(weights, ema, strict=True):
            weight.copy_(average)
    log.write(step=step, final_psnr_db=held_psnr())
    folder = MODELS / "diffusion" / "vae"
    vae.eval().half().cpu().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("_name_or_path", None)  # the folder it was read from here says nothing elsewhere
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
