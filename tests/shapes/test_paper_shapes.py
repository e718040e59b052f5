"""The paper's settings at their true sizes (DESIGN section 5), with random weights: Stable Diffusion 1.x at 512 px.

The UNet is whole, 860 million weights; text encoder and autoencoder have fewer layers and channels than the published
ones, but their widths and factors.
"""

from __future__ import annotations

import resource
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torchvision.models import get_model, get_weight
from transformers import CLIPTextConfig, CLIPTextModel, MaskFormerForInstanceSegmentation, ResNetConfig, ResNetModel

from diffground.detection.torchvision_backend import MaskRcnnDetector
from diffground.diffusion.generator import Generator
from diffground.diffusion.unet_features import tap_features
from diffground.grounding.fusion import Fusion
from diffground.grounding.module import GroundingModule
from diffground.grounding.visual_encoder import VisualEncoder
from diffground.reproduction.config import Params
from diffground.runtime.device import pick_dtype
from tests.shapes.method import CATEGORIES, CPU, favour, paper_params, recorded_shapes, run_method
from tests.unit.diffusion.conftest import build_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(360)]

MAX_MEMORY_GIB = 12
"""Of the process that runs the whole method."""

FEATURES = {
    8: {1280: 6},
    16: {1280: 5, 640: 1},
    32: {1280: 1, 640: 4, 320: 1},
    64: {640: 1, 320: 6},
}
"""DESIGN section 5: size -> number of maps with so many channels."""


def build_sd1() -> StableDiffusionPipeline:
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 77
    # diffusers' defaults are the UNet of Stable Diffusion 1.x, but for these
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=2,
            num_attention_heads=12,
            max_position_embeddings=77,
            projection_dim=768,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    dtype = pick_dtype("auto")
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # the weights never are there twice
    try:
        return Generator(build_sd1(), image_size=512, generator_id="random")
    finally:
        torch.set_default_dtype(previous)


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    folder = tmp_path_factory.mktemp("params")
    backbone = folder / "resnet101"
    ResNetModel(ResNetConfig(depths=[3, 4, 23, 3])).save_pretrained(backbone)
    return paper_params(folder, f"segmenter.backbone={backbone}")


def build_detector(params: Params) -> MaskRcnnDetector:
    """That of conf/detector/maskrcnn_coco.yaml without its weights."""
    torch.manual_seed(0)
    model = get_model("maskrcnn_resnet50_fpn_v2", weights=None, weights_backbone=None, box_score_thresh=0.0)
    names = get_weight(params.detector.checkpoint).meta["categories"]
    favour(model, [names.index(category) for category in CATEGORIES])
    return MaskRcnnDetector(model, category_names=names, mask_threshold=params.detector.mask_threshold, device=CPU)


def test_the_features_are_those_of_the_paper(generator: Generator) -> None:
    with tap_features(generator._unet) as maps:
        channels = generator.feature_channels("both")
    assert len(maps) == 12 + 1 + 12
    found = {size: dict(Counter(m.shape[1] for m in maps if m.shape[-1] == size)) for size in (8, 16, 32, 64)}
    assert found == FEATURES
    # with and without the prompt
    assert channels == {
        size: 2 * sum(width * number for width, number in counts.items()) for size, counts in FEATURES.items()
    }
    assert generator.text_dim == 768
    assert generator.embed(["a photograph of a dog"]).shape == (1, 77, 768)
    assert generator.noise([0]).shape == (1, 4, 64, 64)
    assert generator.num_attention_maps == 16


def test_every_stage_has_the_paper_s_shapes(generator: Generator, params: Params, tmp_path: Path) -> None:
    with recorded_shapes(VisualEncoder, Fusion, GroundingModule, MaskFormerForInstanceSegmentation) as shapes:
        run = run_method(generator, detector=build_detector(params), params=params, folder=tmp_path)

    # generate: 512 px, latents 64 x 64; detect: masks of the image's size
    assert run.sample.image().shape == (512, 512, 3)
    assert run.sample.latent.shape == (4, 64, 64) and np.isfinite(run.sample.latent).all()
    assert set(run.sample.masks()) == set(CATEGORIES)
    assert all(mask.shape == (512, 512) for mask in run.sample.masks().values())

    # ground: one step of 8 samples with 2 words, then 1 image is synthesized
    num_words, batch = len(CATEGORIES), params.grounding.batch_size
    assert batch == 8
    assert shapes["VisualEncoder"] == [((n, 240, 64, 64),) for n in (batch, 1)]
    # text, 256 tokens of 4 x 4 x 240 numbers, mask embeddings
    assert shapes["Fusion"] == [((n, num_words, 768), (n, 256, 3840), (n, num_words, 240)) for n in (batch, 1)]
    assert [s[-1] for s in shapes["GroundingModule"]] == [(n, num_words, 512, 512) for n in (batch, 1)]
    fusion = run.fitted.module.fusion
    assert fusion.to_q.weight.shape == (512, 768)
    assert fusion.to_k.weight.shape == (512, 3840)
    assert len(fusion.layers) == 3
    assert all(layer.cross_attention.num_heads == 8 and layer.ffn[0].out_features == 2048 for layer in fusion.layers)
    assert sum(isinstance(layer, torch.nn.Linear) for layer in fusion.mlp) == 3
    assert [r.weight.shape[0] for r in run.fitted.module.visual_encoder.reductions] == [16, 32, 64, 128]
    assert np.isfinite(run.fitted.curve.losses).all()
    assert run.fitted.counts.num_skipped_queries == 0

    # synthesize
    assert run.image.shape == (512, 512, 3)
    assert run.label.shape == (512, 512) and run.label.dtype == np.uint8
    assert set(np.unique(run.label)) <= {0, 8, 15}  # background, cat, person in VOC order

    # segment: 8 views of 224 px, masks at stride 4, 100 queries, 20 categories with background and the null class
    (step,) = shapes["MaskFormerForInstanceSegmentation"]
    assert (batch, 100, 22) in step and (batch, 100, 56, 56) in step
    encoder = run.segmenter.model.model.pixel_level_module.encoder
    assert encoder.channels == [256, 512, 1024, 2048]
    assert [len(stage.layers) for stage in encoder.encoder.stages] == [3, 4, 23, 3]
    assert np.isfinite(run.segmenter_loss)
    (scores,) = run.segmenter.predict([run.image])
    assert scores.shape == (21, 512, 512)

    # The most that this process ever held in memory, the generator's weights and pytest itself among it.
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak_kib / 2**20 < MAX_MEMORY_GIB


@torch.no_grad()
def test_tokens_of_the_whole_image_are_sixteen_thousand(generator: Generator, params: Params) -> None:
    config = replace(params.grounding, tokens_at="image")
    module = GroundingModule(
        feature_channels=generator.feature_channels(config.branches),
        text_dim=generator.text_dim,
        num_attention_maps=0,
        reduced_channels=config.reduced_channels,
        embed_dim=config.embed_dim,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        ffn_dim=config.ffn_dim,
        patch_size=config.patch_size,
        tokens_at=config.tokens_at,
    ).eval()
    maps = {size: torch.randn(1, width, size, size) for size, width in generator.feature_channels("both").items()}
    with recorded_shapes(Fusion) as shapes:
        logits = module(maps, torch.randn(1, 2, 768), None, image_size=512)
    assert shapes["Fusion"] == [((1, 2, 768), (1, 16_384, 3840), (1, 2, 240))]
    assert logits.shape == (1, 2, 512, 512)
