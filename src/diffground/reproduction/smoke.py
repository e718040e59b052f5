"""Tiny components with random weights for profile `smoke`: every stage runs on them in seconds. They learn nothing.

They have the formats of the real ones: a diffusers Stable Diffusion folder, a Mask R-CNN folder, a transformers ResNet.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, ResNetConfig, ResNetModel
from transformers.utils.logging import disable_progress_bar

from diffground.detection.small_mask_rcnn import build_small_mask_rcnn
from diffground.detection.torchvision_backend import save_small_mask_rcnn
from diffground.vocabulary import load_vocabulary

IMAGE_SIZE = 32
"""px; the autoencoder's factor is 4, so latents are 8 x 8 and UNet features 8, 4 and 2."""
TEXT_DIM = 32
MAX_TOKENS = 64
SEED = 0


def build_components(folder: Path) -> None:
    """Write folder/diffusion, folder/detector and folder/backbone, together 1.5 MB; the same bytes every time.

    A complete folder is not changed; an incomplete one (of an interrupted build) is built again.
    """
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        build_pipeline().save_pretrained(partial / "diffusion", safe_serialization=True)
        _save_detector(partial / "detector")
        build_backbone().save_pretrained(partial / "backbone", safe_serialization=True)
    partial.replace(folder)


def build_pipeline() -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline of 0.2 M weights at IMAGE_SIZE, in the architecture of the mini one."""
    tokenizer = build_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_DIM,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_DIM,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=[8, 16, 16],
        layers_per_block=1,
        down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        sample_size=IMAGE_SIZE,
        block_out_channels=[8, 8, 8],
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        layers_per_block=1,
        norm_num_groups=4,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer of single characters: no merges, so that every word spans several tokens."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=MAX_TOKENS)


def build_backbone() -> ResNetModel:
    """A ResNet of one basic block per stage, strides 4 to 32."""
    return ResNetModel(
        ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 8, 16, 16],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
    )


def _save_detector(folder: Path) -> None:
    names = [name or category for category, name in load_vocabulary("pascal").detector_names.items()]
    settings: dict[str, Any] = {
        "num_categories": len(names),
        "image_size": IMAGE_SIZE,
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 16],
        "depths": [1, 1, 1],
        "fpn_channels": 16,
        "anchor_sizes": [[8, 12], [16, 20]],
        "anchor_ratios": [1.0],
        "box_head_dim": 32,
        "mask_head_channels": 8,
        "mask_head_layers": 1,
        "score_threshold": 0.0,
        "max_instances": 100,
    }
    model = build_small_mask_rcnn(**settings).eval()
    images = list(torch.rand(8, 3, IMAGE_SIZE, IMAGE_SIZE))
    _spread(model, model.roi_heads.box_predictor.cls_score, images, std=2.0)
    _spread(model, model.roi_heads.mask_predictor.logits, images, std=2.0)
    save_small_mask_rcnn(model, folder, category_names=names, model_config=settings)


@torch.no_grad()
def _spread(model: nn.Module, layer: nn.Linear | nn.Conv2d, images: list[Tensor], *, std: float) -> None:
    """Rescale and shift each output of `layer` to mean 0 and `std` over `images`.

    The output of random heads hardly depends on the input: without this every box has the same category and mask.
    """
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(
        lambda _layer, _inputs, output: outputs.append(output.movedim(1, -1).flatten(0, -2))
    )
    model(images)
    hook.remove()
    seen = torch.cat(outputs)  # (N, channels)
    scale = std / seen.std(dim=0)
    layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))
    assert layer.bias is not None
    layer.bias.copy_((layer.bias - seen.mean(dim=0)) * scale)
