"""Train the mini text-to-image model: a CLIP text encoder and a UNet, jointly, on latents of captioned scenes.

The latents are those of common.scene_moments, from a small autoencoder and chroma; grow_vae.py makes the autoencoder
that reads and writes them at full size. Writes models/mini/diffusion (with that VAE a complete
StableDiffusionPipeline folder). The state is saved as it goes: started again, the script goes on where it was. The
budget is wall-clock time over all sittings.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from common import (
    BASE_VAE,
    HERE,
    MODELS,
    SPRITES,
    TrainingLog,
    load_base_vae,
    mixed_precision,
    pick_device,
    read_book,
    read_params,
    scene_moments,
)
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from training_scenes import training_scene
from training_state import TrainingState
from transformers import CLIPTextModel, CLIPTokenizer
from words import build_text_encoder, build_tokenizer, carry_over_words

from diffground.data.stickers.sprites import SpriteBook

STATE = HERE / "state" / "diffusion.safetensors"
SNAPSHOTS = HERE / "state" / "snapshots"
LATENTS = HERE / "state" / "latents.safetensors"
_LOG_EVERY_STEPS = 250


def build_unet(
    channels: list[int], *, layers: int, latent_channels: int, latent_size: int, text_dim: int
) -> UNet2DConditionModel:
    coarse = len(channels) - 1
    unet = UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=channels,
        layers_per_block=layers,
        down_block_types=["CrossAttnDownBlock2D"] * coarse + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * coarse,
        # at full latent size self-attention costs as much as all the rest on a CPU; cross-attention is used twice
        only_cross_attention=[True] + [False] * coarse,
        cross_attention_dim=text_dim,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    unet.set_attn_processor(AttnProcessor())  # the fused CPU kernel's backward pass is several times slower
    return unet


def carry_over_unet(unet: UNet2DConditionModel, folder: Path) -> None:
    """Load the UNet of the checkpoint in `folder`, whose latents may have fewer channels: the first of these.

    The new channels are ignored at first and predicted as 0.
    """
    weights = unet.state_dict()
    for name, weight in load_file(next((folder / "unet").glob("*.safetensors"))).items():
        if name == "conv_in.weight":
            weights[name].zero_()[:, : weight.shape[1]] = weight.float()
        elif name.startswith("conv_out."):
            weights[name].zero_()[: len(weight)] = weight.float()
        else:
            weights[name].copy_(weight)
    unet.load_state_dict(weights)


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


def encode_scenes(
    book: SpriteBook, vae: AutoencoderKL, params: dict, device: torch.device
) -> tuple[torch.Tensor, list[str]]:
    """Scaled latents float32 (N, C, h, w) on `device`, and captions; kept on disk for a resumed training."""
    p = params["scenes"]
    made_of = [SPRITES, BASE_VAE / "diffusion_pytorch_model.safetensors"]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in made_of]
    key = json.dumps([params["seed"], params["image_size"], p, vae.config.scaling_factor, digests])
    if LATENTS.exists():
        with safe_open(LATENTS, "pt") as file:
            if file.metadata()["key"] == key:
                return file.get_tensor("latents").to(device), json.loads(file.metadata()["captions"])
    latents, captions, images = [], [], []
    for i in tqdm(range(p["num_train"]), desc="scenes", mininterval=10):
        scene, words = training_scene(book, params, i)
        captions.append(words)
        images.append(scene.image)
        if len(images) == 128 or i + 1 == p["num_train"]:
            latents.append(scene_moments(np.stack(images), vae).chunk(2, dim=1)[0])
            images = []
    scaled = torch.cat(latents) * vae.config.scaling_factor
    LATENTS.parent.mkdir(exist_ok=True)
    save_file({"latents": scaled.cpu().contiguous()}, LATENTS, metadata={"key": key, "captions": json.dumps(captions)})
    return scaled, captions


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
    latents, captions = encode_scenes(book, vae, params, device)
    unet = build_unet(
        p["block_out_channels"],
        layers=p["layers_per_block"],
        latent_channels=latents.shape[1],
        latent_size=latents.shape[-1],
        text_dim=p["text_dim"],
    ).to(device)
    token_ids = tokenizer(
        ["", *captions], padding="max_length", max_length=p["max_tokens"], truncation=True, return_tensors="pt"
    ).input_ids.to(device)
    scheduler = build_scheduler()
    alpha_bar = scheduler.alphas_cumprod.to(device)

    model = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    if p["warm_start"] and not STATE.exists():
        carry_over_unet(unet, MODELS / "diffusion")
        carry_over_words(tokenizer, text_encoder, MODELS / "diffusion")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=p["learning_rate"], betas=(0.9, 0.99), weight_decay=1e-3, fused=True
    )
    state = TrainingState(STATE, model, optimizer, ema_decay=p["ema_decay"])
    denoise = torch.compile(unet) if device.type == "cuda" else unet

    def export(folder: Path) -> None:
        _export(folder, tokenizer, unet, text_encoder, scheduler, state.average)

    def save() -> None:
        export(MODELS / "diffusion")  # first: a resumed training reads the tokenizer there; its ids must fit the state
        state.save()

    log = TrainingLog(HERE / "logs" / "diffusion.jsonl")
    log.forget_after(state.step)
    generator = torch.Generator(device).manual_seed(params["seed"] + state.step)
    running, num_running, last_save = torch.zeros((), device=device), 0, state.elapsed_s
    while (progress := state.elapsed_s / p["budget_s"]) < 1:
        decay = min(1.0, (1 - progress) / p["decay_frac"])
        rate = p["learning_rate"] * decay * min(1.0, (state.step + 1) / p["warmup_steps"])
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = torch.randint(len(latents), (p["batch_size"],), generator=generator, device=device)
        keep_text = torch.rand(len(chosen), generator=generator, device=device) >= p["drop_text_frac"]
        v_losses, timesteps = denoising_losses(
            denoise, scheduler, latents[chosen], text_encoder, token_ids[(chosen + 1) * keep_text], generator
        )  # row 0 of token_ids is the empty prompt
        snr = alpha_bar[timesteps] / (1 - alpha_bar[timesteps])
        weight = snr.clamp(max=p["min_snr_gamma"]) / (snr + 1) + 0.1  # the floor keeps the pure-noise step trained
        state.descend((weight * v_losses).mean(), max_grad_norm=1.0)
        running, num_running = running + v_losses.detach().mean(), num_running + 1
        if state.step % _LOG_EVERY_STEPS == 0:
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
        if state.step % p["snapshot_every_steps"] == 0:
            export(SNAPSHOTS / f"{state.step:06d}")
    save()


def denoising_losses(
    denoise: UNet2DConditionModel,
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


def _export(
    folder: Path,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    scheduler: DDIMScheduler,
    average: dict[str, Tensor],
) -> None:
    """Write the averaged weights, float16, next to the VAE: together a StableDiffusionPipeline folder."""
    with torch.no_grad():
        for name, module in (("unet", copy.deepcopy(unet)), ("text_encoder", copy.deepcopy(text_encoder))):
            for key, weight in module.named_parameters():
                weight.copy_(average[f"{name}.{key}"])
            module.half().cpu().save_pretrained(folder / name)
    # transformers loads in the dtype that the config names, diffusers in float32: make both the same by default
    config_path = folder / "text_encoder" / "config.json"
    config = json.loads(config_path.read_text()) | {"dtype": "float32"}
    config_path.write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(folder / "tokenizer")
    scheduler.save_pretrained(folder / "scheduler")
    parts = {
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "requires_safety_checker": False,
        **parts,
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main()
