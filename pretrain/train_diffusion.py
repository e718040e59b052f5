"""Train the mini text-to-image model: a CLIP text encoder and a UNet, jointly, on latents of captioned scenes.

Writes models/mini/diffusion (with the VAE of train_vae.py a complete StableDiffusionPipeline folder). The state is
saved as it goes: started again, the script goes on where it was. The budget is wall-clock time over all sittings.
"""

from __future__ import annotations

import copy
import json
import time

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from common import HERE, MODELS, TrainingLog, load_state, pick_device, read_params, sample_scene, save_state, to_tensor
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffground.data.stickers.backgrounds import PLACES
from diffground.data.stickers.scenes import caption
from diffground.data.stickers.sprites import SpriteBook, read_sprites
from diffground.vocabulary import PHRASES, with_article

STATE = HERE / "state" / "diffusion.safetensors"
LATENTS = HERE / "state" / "latents.safetensors"
_SUSPENDED_S = 10.0  # a step that took longer was interrupted: the pause is not training time


def build_tokenizer(book: SpriteBook, *, max_tokens: int) -> CLIPTokenizer:
    """A CLIP tokenizer that makes one token of every word of the captions; other words fall apart into letters."""
    phrases = [PHRASES.get(c, c) for c in [*book.train, *book.further]] + list(PLACES)
    sentences = [f"a photograph of {with_article(phrase)} and an apple" for phrase in phrases]
    letters = [chr(code) for code in range(33, 127)]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    bpe.train_from_iterator(
        sentences, trainer
    )  # far fewer merges than vocab_size: it stops when every word is one token
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_tokens)


def build_text_encoder(tokenizer: CLIPTokenizer, *, dim: int, layers: int) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=dim, intermediate_size=4 * dim, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=tokenizer.model_max_length, projection_dim=dim,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip


def build_unet(
    channels: list[int], *, layers: int, latent_channels: int, latent_size: int, text_dim: int
) -> UNet2DConditionModel:
    coarse = len(channels) - 1
    unet = UNet2DConditionModel(
        sample_size=latent_size, in_channels=latent_channels, out_channels=latent_channels,
        block_out_channels=channels, layers_per_block=layers,
        down_block_types=["CrossAttnDownBlock2D"] * coarse + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * coarse,
        # at full latent size self-attention costs as much as all the rest on a CPU: words are attended to twice instead
        only_cross_attention=[True] + [False] * coarse,
        cross_attention_dim=text_dim, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip
    unet.set_attn_processor(AttnProcessor())  # the fused CPU kernel's backward pass is several times slower
    return unet


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=True, steps_offset=1, timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )  # fmt: skip


def encode_scenes(
    book: SpriteBook, vae: AutoencoderKL, params: dict, device: torch.device
) -> tuple[torch.Tensor, list[str]]:
    """Scaled latents float32 (N, C, h, w) on `device`, and captions; kept on disk, so that a resume starts at once."""
    key = json.dumps([params["seed"], params["image_size"], params["scenes"], vae.config.scaling_factor])
    if LATENTS.exists():
        with safe_open(LATENTS, "pt") as file:
            if file.metadata()["key"] == key:
                return file.get_tensor("latents").to(device), json.loads(file.metadata()["captions"])
    p = params["scenes"]
    latents, captions, images = [], [], []
    for i in tqdm(range(p["num_train"]), desc="scenes", mininterval=10):
        choice = np.random.default_rng([params["seed"], 2, i])
        num_objects = 2 if choice.random() < p["two_objects_frac"] else 1
        scene = sample_scene(
            book, seed=params["seed"] + 3, index=i, num_objects=num_objects,
            further_frac=p["further_frac"], image_size=params["image_size"],
        )  # fmt: skip
        captions.append(caption(scene, phrases=PHRASES, with_place=choice.random() < p["place_frac"]))
        images.append(scene.image)
        if len(images) == 128 or i + 1 == p["num_train"]:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
                latents.append(vae.encode(to_tensor(np.stack(images)).to(device)).latent_dist.mean.float())
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
    book = read_sprites(HERE / "data" / "sprites.npz")
    vae = AutoencoderKL.from_pretrained(MODELS / "diffusion" / "vae", torch_dtype=torch.float32).to(device).eval()
    if STATE.exists() or p["warm_start"]:  # the trainer of merges breaks ties by chance: ids must stay what they were
        tokenizer = CLIPTokenizer.from_pretrained(MODELS / "diffusion" / "tokenizer")
    else:
        tokenizer = build_tokenizer(book, max_tokens=p["max_tokens"])
    text_encoder = build_text_encoder(tokenizer, dim=p["text_dim"], layers=p["text_layers"]).to(device)
    latents, captions = encode_scenes(book, vae, params, device)
    unet = build_unet(
        p["block_out_channels"], layers=p["layers_per_block"], latent_channels=latents.shape[1],
        latent_size=latents.shape[-1], text_dim=p["text_dim"],
    ).to(device)  # fmt: skip
    token_ids = tokenizer(
        ["", *captions], padding="max_length", max_length=p["max_tokens"], truncation=True, return_tensors="pt"
    ).input_ids.to(device)
    scheduler = build_scheduler()
    alpha_bar = scheduler.alphas_cumprod.to(device)

    model = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    if p["warm_start"] and not STATE.exists():
        for name, module in model.items():
            part = load_file(next((MODELS / "diffusion" / name).glob("*.safetensors")))
            module.load_state_dict({key: weight.float() for key, weight in part.items()})
    weights = dict(model.named_parameters())
    ema = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = torch.optim.AdamW(
        weights.values(), lr=p["learning_rate"], betas=(0.9, 0.99), weight_decay=1e-3, fused=True
    )
    step, elapsed = 0, 0.0
    if STATE.exists():
        saved, numbers = load_state(STATE)
        step, elapsed = int(numbers["step"]), numbers["elapsed_s"]
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(saved[f"model.{name}"])
                ema[name].copy_(saved[f"ema.{name}"])
                if f"exp_avg.{name}" in saved:
                    optimizer.state[weight] = {
                        "step": torch.tensor(float(step)),
                        "exp_avg": saved[f"exp_avg.{name}"].to(device),
                        "exp_avg_sq": saved[f"exp_avg_sq.{name}"].to(device),
                    }

    def save() -> None:
        tensors = {f"model.{n}": w.detach() for n, w in weights.items()} | {f"ema.{n}": w for n, w in ema.items()}
        for name, weight in weights.items():
            tensors |= {f"{k}.{name}": optimizer.state[weight][k] for k in ("exp_avg", "exp_avg_sq")}
        save_state(STATE, tensors, step=step, elapsed_s=elapsed)
        _export(tokenizer, unet, text_encoder, scheduler, ema)

    log = TrainingLog(HERE / "logs" / "diffusion.jsonl")
    log.forget_after(step)
    generator = torch.Generator().manual_seed(params["seed"] + step)
    running, last_save, tick = [], elapsed, time.monotonic()
    while (progress := elapsed / p["budget_s"]) < 1:
        decay = min(1.0, (1 - progress) / p["decay_frac"])
        for group in optimizer.param_groups:
            group["lr"] = p["learning_rate"] * decay * min(1.0, (step + 1) / p["warmup_steps"])
        batch_size = p["batch_size"] if decay == 1 else p["late_batch_size"]
        chosen = torch.randint(len(latents), (batch_size,), generator=generator)
        timesteps = torch.randint(len(alpha_bar), (batch_size,), generator=generator).to(device)
        noise = torch.randn((batch_size, *latents.shape[1:]), generator=generator).to(device)
        keep_text = torch.rand(batch_size, generator=generator) >= p["drop_text_frac"]
        clean = latents[chosen.to(device)]
        ids = token_ids[((chosen + 1) * keep_text).to(device)]  # row 0 is the empty prompt
        noisy = scheduler.add_noise(clean, noise, timesteps)
        target = scheduler.get_velocity(clean, noise, timesteps)
        with torch.autocast(device.type, torch.bfloat16):
            text = text_encoder(ids)[0]
            predicted = unet(noisy, timesteps, encoder_hidden_states=text, return_dict=False)[0].float()
        snr = alpha_bar[timesteps] / (1 - alpha_bar[timesteps])
        weight = (
            snr.clamp(max=p["min_snr_gamma"]) / (snr + 1) + 0.1
        )  # the floor keeps the first, pure-noise step trained
        per_sample = F.mse_loss(predicted, target, reduction="none").mean(dim=(1, 2, 3))
        loss = (weight * per_sample).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        step += 1
        rate = min(p["ema_decay"], (1 + step) / (10 + step))
        torch._foreach_lerp_(list(ema.values()), [w.detach() for w in weights.values()], 1 - rate)
        running.append(float(per_sample.detach().mean()))
        now = time.monotonic()
        elapsed, tick = elapsed + min(now - tick, _SUSPENDED_S), now
        if step % 250 == 0:
            log.write(
                step=step, v_loss=float(np.mean(running)), elapsed_s=elapsed,
                learning_rate=optimizer.param_groups[0]["lr"], batch_size=batch_size,
            )  # fmt: skip
            running = []
        if elapsed - last_save > p["save_every_s"]:
            save()
            last_save, tick = elapsed, time.monotonic()
    save()


def _export(
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    scheduler: DDIMScheduler,
    ema: dict[str, torch.Tensor],
) -> None:
    """Write the averaged weights, float16, beside the VAE: together a StableDiffusionPipeline folder."""
    folder = MODELS / "diffusion"
    with torch.no_grad():
        for name, module in (("unet", copy.deepcopy(unet)), ("text_encoder", copy.deepcopy(text_encoder))):
            for key, weight in module.named_parameters():
                weight.copy_(ema[f"{name}.{key}"])
            module.half().cpu().save_pretrained(folder / name)
    # transformers loads in the dtype that the config names, diffusers in float32: let both be the same by default
    config_path = folder / "text_encoder" / "config.json"
    config = json.loads(config_path.read_text()) | {"dtype": "float32"}
    config_path.write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(folder / "tokenizer")
    scheduler.save_pretrained(folder / "scheduler")
    parts = {"vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "UNet2DConditionModel"],
             "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
             "tokenizer": ["transformers", "CLIPTokenizer"], "safety_checker": [None, None],
             "feature_extractor": [None, None], "image_encoder": [None, None]}  # fmt: skip
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__,
             "requires_safety_checker": False, **parts}  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main()
