"""Pipelines in the structure of Stable Diffusion 1.x, 2.x and XL with few channels and random weights."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.unit.diffusion.conftest import build_tokenizer

IMAGE_SIZE = 128
"""px; the autoencoder's factor is 8, as that of every Stable Diffusion."""
CHANNELS = 20
"""Of the UNet's finest blocks, which have 320 in the published models."""


def build_sd1() -> StableDiffusionPipeline:
    """Four sizes, eight heads at every size, projections by convolution, predicts noise: as stable-diffusion-v1-5."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 8,
        in_channels=4,
        out_channels=4,
        norm_num_groups=4,
        layers_per_block=2,
        block_out_channels=(16, 32, 64, 64),
        attention_head_dim=8,
        cross_attention_dim=16,
    )
    return StableDiffusionPipeline(
        vae=_vae(scaling_factor=0.18215),
        unet=unet,
        text_encoder=_text_encoder(tokenizer, dim=16, projection=0),
        tokenizer=tokenizer,
        scheduler=_scheduler("epsilon"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_sd2(*, prediction_type: str = "v_prediction") -> StableDiffusionPipeline:
    """Four sizes, heads of one width at every size, linear projections, predicts v: as stable-diffusion-2-1."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 8,
        in_channels=4,
        out_channels=4,
        norm_num_groups=4,
        layers_per_block=2,
        block_out_channels=(CHANNELS, 2 * CHANNELS, 4 * CHANNELS, 4 * CHANNELS),
        attention_head_dim=[5, 10, 20, 20],
        cross_attention_dim=16,
        use_linear_projection=True,
    )
    return StableDiffusionPipeline(
        vae=_vae(scaling_factor=0.18215),
        unet=unet,
        text_encoder=_text_encoder(tokenizer, dim=16, projection=0),
        tokenizer=tokenizer,
        scheduler=_scheduler(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_sdxl(*, force_zeros_for_empty_prompt: bool = True) -> StableDiffusionXLPipeline:
    """Three sizes, 0 / 2 / 10 transformer layers, two text encoders, pooled text and time ids: as sd-xl-base-1.0."""
    torch.manual_seed(0)
    tokenizer, tokenizer_2 = build_tokenizer(), build_tokenizer()
    tokenizer_2.pad_token = "q"  # the second pads with an ordinary token
    unet = UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 8,
        in_channels=4,
        out_channels=4,
        norm_num_groups=4,
        layers_per_block=2,
        block_out_channels=(CHANNELS, 2 * CHANNELS, 4 * CHANNELS),
        attention_head_dim=[5, 10, 20],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],
        cross_attention_dim=16 + 24,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(scaling_factor=0.13025),
        unet=unet,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        text_encoder=_text_encoder(tokenizer, dim=16, projection=0),
        text_encoder_2=_text_encoder(tokenizer_2, dim=24, projection=24),
        scheduler=_scheduler("epsilon"),
        force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
        add_watermarker=False,
    )


def _text_encoder(tokenizer: CLIPTokenizer, *, dim: int, projection: int) -> CLIPTextModel:
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    model = kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=dim,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=24,
            projection_dim=projection or dim,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    # random text states of the default scale hardly reach the image; larger ones let every word matter
    model.get_input_embeddings().weight.data.mul_(50)
    return model


def _vae(*, scaling_factor: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=IMAGE_SIZE,
        scaling_factor=scaling_factor,
    )


def _scheduler(prediction_type: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
