"""The parts of the mini generator that are trained, and the pipeline folder that they are written to."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

_MAX_SHARD_SIZE = "16MB"


@dataclass(frozen=True)
class Parts:
    """What the training changes or needs of the pipeline; the autoencoder is another training's."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler

    def trained(self) -> torch.nn.ModuleDict:
        return torch.nn.ModuleDict({"unet": self.unet, "text_encoder": self.text_encoder})

    def optimizer(self, learning_rate: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            self.trained().parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
        )

    def token_ids(self, captions: list[str]) -> Tensor:
        """int64 (1 + N, L): the empty prompt, then `captions`."""
        return self.tokenizer(
            ["", *captions],
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids


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


def load_parts(folder: Path, device: torch.device) -> Parts:
    """Those of the pipeline in `folder`, float32 on `device`, to be trained further."""
    loaded = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    # without the folder's name, which would be written with the trained weights
    unet = UNet2DConditionModel.from_config({k: v for k, v in loaded.config.items() if k != "_name_or_path"})
    unet.load_state_dict(loaded.state_dict())
    unet.set_attn_processor(AttnProcessor())  # as build_unet
    return Parts(
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).to(device).train(),
        unet=unet.to(device).train(),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
    )


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


def export_pipeline(folder: Path, parts: Parts, average: dict[str, Tensor]) -> None:
    """Write the averaged weights, float16, next to the VAE: together a StableDiffusionPipeline folder."""
    with torch.no_grad():
        for name, module in (("unet", copy.deepcopy(parts.unet)), ("text_encoder", copy.deepcopy(parts.text_encoder))):
            for key, weight in module.named_parameters():
                weight.copy_(average[f"{name}.{key}"])
            module.half().cpu().save_pretrained(folder / name, max_shard_size=_MAX_SHARD_SIZE)
    # transformers loads in the dtype that the config names, diffusers in float32: make both the same by default
    config_path = folder / "text_encoder" / "config.json"
    config = json.loads(config_path.read_text()) | {"dtype": "float32"}
    config_path.write_text(json.dumps(config, indent=2) + "\n")
    parts.tokenizer.save_pretrained(folder / "tokenizer")
    parts.scheduler.save_pretrained(folder / "scheduler")
    classes = {
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
        **classes,
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
