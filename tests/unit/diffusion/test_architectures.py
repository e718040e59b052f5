"""Stable Diffusion 2.x and XL: parity with diffusers, features of their UNets, and what is no such pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

from diffground.diffusion.checkpoint import load_pipeline
from diffground.diffusion.generator import Generator, Tap
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from tests.unit.diffusion.architectures import CHANNELS, IMAGE_SIZE, build_sd2, build_sdxl

CPU = {"device": torch.device("cpu"), "dtype": torch.float32, "image_size": IMAGE_SIZE}
PROMPTS = ["a photograph of a dog", "a photograph of a cat and a bus"]
SEEDS = [3, 5]
ATOL = 2e-4


def _saved(pipeline: DiffusionPipeline, folder: Path) -> Path:
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(build_sd2(), tmp_path_factory.mktemp("sd2") / "pipeline")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(build_sdxl(), tmp_path_factory.mktemp("sdxl") / "pipeline")


@pytest.mark.parametrize(
    ("build", "guidance_scale"),
    [
        (build_sd2, 4.0),
        (build_sdxl, 1.0),
        (build_sdxl, 4.0),
        (partial(build_sdxl, force_zeros_for_empty_prompt=False), 4.0),
    ],
    ids=["2.x", "XL without guidance", "XL", "XL, empty prompt encoded"],
)
def test_sampling_equals_the_diffusers_pipeline(
    build: Callable[[], DiffusionPipeline], guidance_scale: float, tmp_path: Path
) -> None:
    generator = Generator.load(str(_saved(build(), tmp_path / "pipeline")), **CPU)
    pipeline = build()
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPTS,
        num_inference_steps=2,
        guidance_scale=guidance_scale,
        height=IMAGE_SIZE,
        width=IMAGE_SIZE,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="np",
    ).images
    images = generator.sample(PROMPTS, SEEDS, Sampling(2, guidance_scale, 1)).images
    assert expected.std() > 0.04
    assert np.abs(images.astype(int) - (expected * 255).round().astype(int)).max() <= 1


def test_the_two_ways_to_an_empty_prompt_differ() -> None:
    zeros, encoded = (
        Generator(build_sdxl(force_zeros_for_empty_prompt=z), image_size=IMAGE_SIZE, generator_id="x").embed([""])
        for z in (True, False)
    )
    assert not zeros.any()
    assert encoded.any()


# Stable Diffusion 2.x groups by size as 1.x does (DESIGN section 5, in units of 320 channels): 6 maps of 4; five of 4
# and one of 2; one 4, four 2, one 1; one 2 and six 1. XL has no fourth size. Coarsest: a downsampler's 2, two layers
# and the mid block of 4, and of the up path two of its three layers of 4. Then: a downsampler's 1, two layers of 2,
# the upsampled 4, two layers of 2. Finest: conv_in and two layers of 1, the upsampled 2, three layers of 1.
SIZES_SD2 = {2: 6 * 4, 4: 5 * 4 + 2, 8: 4 + 4 * 2 + 1, 16: 2 + 6}
SIZES_SDXL = {4: 2 + 2 * 4 + 4 + 2 * 4, 8: 1 + 2 * 2 + 4 + 2 * 2, 16: 3 + 2 + 3}


@pytest.mark.parametrize(
    ("name", "sizes", "text_dim", "num_attention_maps"),
    [
        # 16 transformer blocks of one layer; XL: 2 x 2 + 2 x 10 down, 10 in the middle, 3 x 10 + 3 x 2 up
        ("sd2", SIZES_SD2, 16, 16),
        ("sdxl", SIZES_SDXL, 16 + 24, 70),
    ],
)
def test_features_are_those_of_the_unet_that_is_there(
    name: str, sizes: dict[int, int], text_dim: int, num_attention_maps: int, request: pytest.FixtureRequest
) -> None:
    generator = Generator.load(str(request.getfixturevalue(name)), **CPU)
    channels = {size: CHANNELS * units for size, units in sizes.items()}
    assert generator.feature_channels("conditional") == channels
    assert generator.text_dim == text_dim == generator.category_embedding("dog").shape[0]
    assert generator.num_attention_maps == num_attention_maps
    latents = generator.noise(SEEDS)
    words = [["dog"], ["cat", "bus"]]
    together = generator.features(latents, PROMPTS, timestep=41, tap=Tap("both", words))
    assert {size: maps.shape[1] for size, maps in together.maps.items()} == {s: 2 * c for s, c in channels.items()}
    assert together.attention is not None
    assert together.attention.shape == (2, 2, num_attention_maps, 16, 16)
    for i in range(2):
        tap = Tap("both", words[i : i + 1])
        alone = generator.features(latents[i : i + 1], PROMPTS[i : i + 1], timestep=41, tap=tap)
        for size, maps in alone.maps.items():
            torch.testing.assert_close(maps[0], together.maps[size][i], atol=ATOL, rtol=ATOL)


def test_a_prompt_s_pooled_vector_reaches_the_unet(sdxl: Path) -> None:
    generator = Generator.load(str(sdxl), **CPU)
    latents, text = generator.noise([0]), generator._text.encode(PROMPTS[:1])
    assert text.pooled is not None
    other = type(text)(states=text.states, pooled=text.pooled.flip(1))
    with torch.no_grad():
        assert not torch.allclose(generator._predict(latents, 41, text), generator._predict(latents, 41, other))


def test_in_float16_the_decoder_of_xl_computes_in_float32(sdxl: Path, sd2: Path) -> None:
    pipeline = load_pipeline(str(sdxl), dtype=torch.float16)
    assert (pipeline.unet.dtype, pipeline.vae.dtype) == (torch.float16, torch.float32)
    assert load_pipeline(str(sd2), dtype=torch.float16).vae.dtype == torch.float16
    assert load_pipeline(str(sdxl), dtype=torch.bfloat16).vae.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("index", "wrong"),
    [
        (
            {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]},
            "is a FluxPipeline, whose unet must be UNet2DConditionModel, got none",
        ),
        (
            {"_class_name": "IFPipeline", "unet": ["diffusers", "UNet2DConditionModel"]},
            "is a IFPipeline, whose vae must be AutoencoderKL, got none",
        ),
        (
            {"_class_name": "UnCLIPPipeline", "unet": ["diffusers", "UNet2DModel"]},
            "whose unet must be UNet2DConditionModel, got UNet2DModel",
        ),
    ],
)
def test_a_generator_of_another_kind_is_refused_before_it_is_loaded(
    index: dict[str, object], wrong: str, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=f"{wrong}; take a Stable Diffusion 1.x, 2.x or XL pipeline") as caught:
        Generator.load(str(tmp_path), **CPU)
    assert "\n" not in str(caught.value)


def test_an_inpainting_unet_is_refused(tmp_path: Path) -> None:
    pipeline = build_sd2()
    pipeline.unet = UNet2DConditionModel.from_config({**pipeline.unet.config, "in_channels": 9})
    with pytest.raises(UserError, match="must read 4 latent channels and addition_embed_type None, got 9 and None"):
        Generator.load(str(_saved(pipeline, tmp_path / "pipeline")), **CPU)


def test_pickled_weights_of_the_second_encoder_are_refused(tmp_path: Path) -> None:
    folder = _saved(build_sdxl(), tmp_path / "pipeline")
    weights = folder / "text_encoder_2" / "model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UserError, match=r"text_encoder_2 has pickled weights only \(model.bin\)"):
        Generator.load(str(folder), **CPU)


def test_tokenizers_that_cut_words_differently_are_refused() -> None:
    pipeline: StableDiffusionXLPipeline = build_sdxl()
    pipeline.tokenizer_2.add_tokens(["zebra"])
    with pytest.raises(UserError, match="two tokenizers must share one vocabulary"):
        Generator(pipeline, image_size=IMAGE_SIZE, generator_id="x")
