"""Stable Diffusion 1.5 and XL with random weights and a tokenizer of letters, in true size or with few channels."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffground.reproduction.smoke import build_tokenizer

_MAX_TOKENS = 77
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
_TINY_CLIP = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def build_sd15(*, tiny: bool = False) -> StableDiffusionPipeline:
    """At 512 px; tiny: at 64 px, a feature size of one pixel included."""
    tokenizer = _tokenizer()
    # diffusers' defaults are the UNet of Stable Diffusion 1.x, but for these
    unet: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768}
    if tiny:
        unet = {
            "sample_size": 8,
            "cross_attention_dim": 16,
            "block_out_channels": (8, 16, 16, 16),
            "norm_num_groups": 4,
        }
    pipeline = StableDiffusionPipeline(
        vae=_vae(image_size=512, scaling_factor=0.18215, tiny=tiny),
        unet=UNet2DConditionModel(**unet),
        text_encoder=CLIPTextModel(_text_config(tokenizer, _TINY_CLIP if tiny else _CLIP_L)),
        tokenizer=tokenizer,
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_sdxl(*, tiny: bool = False) -> StableDiffusionXLPipeline:
    """At 1024 px; tiny: at 64 px."""
    first, second = (_TINY_CLIP, _TINY_CLIP) if tiny else (_CLIP_L, _CLIP_BIG_G)
    pooled = second["hidden_size"]
    time_dim = 8 if tiny else 256
    width = 8 if tiny else 320
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(image_size=1024, scaling_factor=0.13025, tiny=tiny),
        unet=UNet2DConditionModel(
            sample_size=8 if tiny else 128,
            block_out_channels=(width, 2 * width, 4 * width),
            norm_num_groups=4 if tiny else 32,
            layers_per_block=2,
            attention_head_dim=(2, 4, 8) if tiny else (5, 10, 20),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 2) if tiny else (1, 2, 10),
            cross_attention_dim=first["hidden_size"] + second["hidden_size"],
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=time_dim,
            projection_class_embeddings_input_dim=pooled + 6 * time_dim,
        ),
        tokenizer=(tokenizer := _tokenizer()),
        tokenizer_2=_tokenizer(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, first)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer, second, projection_dim=pooled)),
        scheduler=_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _tokenizer() -> CLIPTokenizer:
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = _MAX_TOKENS
    return tokenizer


def _text_config(tokenizer: CLIPTokenizer, sizes: dict[str, int], **more: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=_MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sizes,
        **more,
    )


def _vae(*, image_size: int, scaling_factor: float, tiny: bool) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8) if tiny else (128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1 if tiny else 2,
        norm_num_groups=4 if tiny else 32,
        latent_channels=4,
        sample_size=image_size,
        scaling_factor=scaling_factor,
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
