"""Train the mini text-to-image model: a CLIP text encoder and a UNet, jointly, on latents of captioned scenes.

The latents are those of common.scene_moments, from a small autoencoder and chroma; grow_vae.py makes the autoencoder
that reads and writes them at full size. Writes models/mini/diffusion (with that VAE a complete
StableDiffusionPipeline folder). The state is saved regularly; started again, the script resumes from it. The budget is
wall-clock time over all runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from common import (
    HERE,
    MODELS,
    SPRITES,
    TrainingLog,
    load_base_vae,
    mixed_precision,
    pick_device,
    read_book,
    read_params,
)
from diffusers import DDIMScheduler
from diffusion_parts import Parts, build_scheduler, build_unet, carry_over_unet, export_pipeline
from latents import encode_scenes, latents_key, read_latents, write_latents
from torch import Tensor
from tqdm import tqdm
from training_scenes import training_scene
from training_state import TrainingState
from transformers import CLIPTextModel, CLIPTokenizer
from words import build_text_encoder, build_tokenizer, carry_over_words

STATE = HERE / "state" / "diffusion.safetensors"
SNAPSHOTS = HERE / "state" / "snapshots"
LATENTS = HERE / "state" / "latents.safetensors"
_LOG_EVERY_STEPS = 250


def main() -> None:
    params = read_params()
    p = params["diffusion"]
    torch.manual_seed(params["seed"])
    device = pick_device()
    book = read_book()
    vae = load_base_vae(device)
    if STATE.exists():  # the trainer of merges breaks ties at random: ids must stay the same
        tokenizer = CLIPTokenizer.from_pretrained(MODELS / "diffusion" / "tokenizer")
    else:
        tokenizer = build_tokenizer(book, max_tokens=p["max_tokens"])
    text_encoder = build_text_encoder(tokenizer, dim=p["text_dim"], layers=p["text_layers"]).to(device)
    key = latents_key(params, vae, sprites=SPRITES)
    if (kept := read_latents(LATENTS, key)) is None:
        numbers = tqdm(range(params["scenes"]["num_train"]), desc="scenes", mininterval=10)
        scenes = (training_scene(book, params, i) for i in numbers)
        kept = encode_scenes(((scene.image, words) for scene, words in scenes), vae)
        write_latents(LATENTS, key, *kept)
    latents, captions = kept[0].to(device), kept[1]
    unet = build_unet(
        p["block_out_channels"],
        layers=p["layers_per_block"],
        latent_channels=latents.shape[1],
        latent_size=latents.shape[-1],
        text_dim=p["text_dim"],
    ).to(device)
    parts = Parts(tokenizer=tokenizer, text_encoder=text_encoder, unet=unet, scheduler=build_scheduler())
    if p["warm_start"] and not STATE.exists():
        carry_over_unet(unet, MODELS / "diffusion")
        carry_over_words(tokenizer, text_encoder, MODELS / "diffusion")
    optimizer = parts.optimizer(p["learning_rate"])
    state = TrainingState(STATE, parts.trained(), optimizer, ema_decay=p["ema_decay"])

    def save() -> None:
        # first: a resumed training reads the tokenizer there; its ids must fit the state
        export_pipeline(MODELS / "diffusion", parts, state.average)
        state.save()

    def after_step() -> None:
        if state.step % p["snapshot_every_steps"] == 0:
            export_pipeline(SNAPSHOTS / f"{state.step:06d}", parts, state.average)

    train(
        parts,
        latents,
        parts.token_ids(captions).to(device),
        p=p,
        denoise=torch.compile(unet) if device.type == "cuda" else unet,
        state=state,
        optimizer=optimizer,
        progress=lambda: state.elapsed_s / p["budget_s"],
        seed=params["seed"],
        log=TrainingLog(HERE / "logs" / "diffusion.jsonl"),
        log_every_steps=_LOG_EVERY_STEPS,
        save=save,
        after_step=after_step,
    )


def train(
    parts: Parts,
    latents: Tensor,
    token_ids: Tensor,
    *,
    p: dict[str, Any],
    denoise: Callable[..., tuple[Tensor, ...]],
    state: TrainingState,
    optimizer: torch.optim.Optimizer,
    progress: Callable[[], float],
    seed: int,
    log: TrainingLog,
    log_every_steps: int,
    save: Callable[[], None],
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Train until `progress`, the share of the training that is done, reaches 1; `save` as often as `p` says, and last.

    `latents` (N, C, h, w), scaled, and `token_ids` (1 + N, L) of Parts.token_ids, both on the device. `denoise`: the
    UNet, or a compiled form of it. `p`: section diffusion of params.yaml.
    """
    device = latents.device
    alpha_bar = parts.scheduler.alphas_cumprod.to(device)
    log.forget_after(state.step)
    generator = torch.Generator(device).manual_seed(seed + state.step)
    running, num_running, last_save = torch.zeros((), device=device), 0, state.elapsed_s
    while (done := progress()) < 1:
        decay = min(1.0, (1 - done) / p["decay_frac"])
        rate = p["learning_rate"] * decay * min(1.0, (state.step + 1) / p["warmup_steps"])
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = torch.randint(len(latents), (p["batch_size"],), generator=generator, device=device)
        keep_text = torch.rand(len(chosen), generator=generator, device=device) >= p["drop_text_frac"]
        v_losses, timesteps = denoising_losses(
            denoise,
            parts.scheduler,
            latents[chosen],
            parts.text_encoder,
            token_ids[(chosen + 1) * keep_text],
            generator,
        )  # row 0 of token_ids is the empty prompt
        snr = alpha_bar[timesteps] / (1 - alpha_bar[timesteps])
        weight = snr.clamp(max=p["min_snr_gamma"]) / (snr + 1) + 0.1  # the floor keeps the pure-noise step trained
        state.descend((weight * v_losses).mean(), max_grad_norm=1.0)
        running, num_running = running + v_losses.detach().mean(), num_running + 1
        if state.step % log_every_steps == 0:
            log.write(
                step=state.step,
                v_loss=float(running / num_running),
                elapsed_s=state.elapsed_s,
                learning_rate=rate,
                batch_size=p["batch_size"],
            )
            running, num_running = torch.zeros_like(running), 0
        if state.elapsed_s - last_save > p["save_every_s"]:
            save()
            last_save = state.elapsed_s
        after_step()
    save()


def denoising_losses(
    denoise: Callable[..., tuple[Tensor, ...]],
    scheduler: DDIMScheduler,
    clean: Tensor,
    text_encoder: CLIPTextModel,
    token_ids: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """v-prediction error of each sample, float32 (B,), at random timesteps, int64 (B,), which are returned with it.

    `clean`: scaled latents (B, C, h, w); `token_ids` (B, L); `generator` lives on their device.
    """
    timesteps = torch.randint(
        scheduler.config.num_train_timesteps, (len(clean),), generator=generator, device=clean.device
    )
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    target = scheduler.get_velocity(clean, noise, timesteps)
    with mixed_precision(clean.device):
        text = text_encoder(token_ids)[0]
        predicted = denoise(noisy, timesteps, encoder_hidden_states=text, return_dict=False)[0].float()
    return F.mse_loss(predicted, target, reduction="none").mean(dim=(1, 2, 3)), timesteps


if __name__ == "__main__":
    main()
