"""Train the autoencoder that reads and writes the generator's latents at full size: models/mini/diffusion/vae.

Its encoder learns to give common.scene_moments of a scene, its decoder to draw the scene from them at full size. So
the generator can be trained on these latents before, or at the same time. The state is saved regularly; started again,
the script resumes from it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    HERE,
    MODELS,
    TrainingLog,
    load_base_vae,
    mixed_precision,
    pick_device,
    read_book,
    read_params,
    sample_scene,
    scene_moments,
    to_tensor,
)
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm
from training_state import TrainingState

STATE = HERE / "state" / "vae.safetensors"
_NUM_HELD = 64


def make_scenes(vae: AutoencoderKL, params: dict) -> tuple[np.ndarray, Tensor]:
    """Scenes uint8 (N, S, S, 3) and their moments by the base autoencoder `vae`, float32 (N, 2C, h, w)."""
    p, world = params["grow"], params["scenes"]
    book = read_book()
    images = np.stack(
        [
            sample_scene(
                book,
                seed=params["seed"] + 4,
                index=i,
                num_objects=1 + i % 3,
                further_frac=world["further_frac"],
                colour_frac=world["colour_frac"],
                image_size=params["image_size"],
            ).image
            for i in tqdm(range(p["num_scenes"]), desc="scenes", mininterval=10)
        ]
    )
    return images, torch.cat([scene_moments(images[i : i + 128], vae) for i in range(0, len(images), 128)])


def crop(images: Tensor, moments: Tensor, *, crop_px: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One box for the whole batch: (B, 3, crop_px, crop_px) and the moments below it. Crops reduce the cost."""
    factor = images.shape[-1] // moments.shape[-1]
    side = crop_px // factor
    y, x = torch.randint(moments.shape[-1] - side + 1, (2,), generator=generator).tolist()
    return (
        images[..., y * factor : y * factor + crop_px, x * factor : x * factor + crop_px],
        moments[..., y : y + side, x : x + side],
    )


def main() -> None:
    params = read_params()
    p = params["grow"]
    torch.manual_seed(params["seed"])
    device = pick_device()
    base = load_base_vae(device)
    images, moments = make_scenes(base, params)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=moments.shape[1] // 2,
        block_out_channels=p["block_out_channels"],
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=["DownEncoderBlock2D"] * len(p["block_out_channels"]),
        up_block_types=["UpDecoderBlock2D"] * len(p["block_out_channels"]),
        sample_size=params["image_size"],
        mid_block_add_attention=False,
        scaling_factor=base.config.scaling_factor,
    ).to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=p["learning_rate"], betas=(0.9, 0.99), weight_decay=1e-4)
    state = TrainingState(STATE, vae, optimizer, ema_decay=p["ema_decay"])
    log = TrainingLog(HERE / "logs" / "grow_vae.jsonl")
    log.forget_after(state.step)
    generator = torch.Generator().manual_seed(params["seed"] + state.step)
    losses: list[float] = []
    last_save = state.elapsed_s
    while (progress := state.elapsed_s / p["budget_s"]) < 1:
        for group in optimizer.param_groups:
            group["lr"] = p["learning_rate"] * min(1.0, (state.step + 1) / 50, 2 * (1 - progress) + 0.01)
        chosen = _NUM_HELD + torch.randint(len(images) - _NUM_HELD, (p["batch_size"],), generator=generator)
        x, target = to_tensor(images[chosen.numpy()]).to(device), moments[chosen.to(device)]
        if progress < 1 - p["whole_frac"]:
            x, target = crop(x, target, crop_px=p["crop_px"], generator=generator)
        z = target.chunk(2, dim=1)[0]
        z = z + p["latent_noise"] * torch.randn(z.shape, generator=generator).to(device)
        with mixed_precision(device):
            y = vae.decode(z).sample.float()
            given = vae.encode(x).latent_dist.parameters.float()
        edges = F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))
        loss = F.l1_loss(y, x) + 2 * F.mse_loss(y, x) + 0.5 * edges + F.mse_loss(given, target)
        state.descend(loss, max_grad_norm=1.0)
        losses.append(float(loss.detach()))
        if state.step % 100 == 0:
            log.write(step=state.step, loss=float(np.mean(losses)), elapsed_s=state.elapsed_s)
            losses = []
        if state.elapsed_s - last_save > p["save_every_s"]:
            state.save()
            last_save = state.elapsed_s
    state.save()
    state.take_average()
    with torch.no_grad():
        held = to_tensor(images[:_NUM_HELD]).to(device)
        mean = moments[:_NUM_HELD].chunk(2, dim=1)[0]
        drawn, own = vae.decode(mean).sample, vae.encode(held).latent_dist.mean
        psnr = 10 * torch.log10(4 / F.mse_loss(drawn, held))
        error = (own - mean).std() / mean.std()
    log.write(step=state.step, final_psnr_db=float(psnr), latent_error_frac=float(error))
    vae.eval().half().cpu().save_pretrained(MODELS / "diffusion" / "vae")


if __name__ == "__main__":
    main()
