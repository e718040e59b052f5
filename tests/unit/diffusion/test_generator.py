"""Sampling and features: parity with diffusers, independence of the batch, errors for the user."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline

from diffground.diffusion.generator import Generator, Samples, Tap
from diffground.diffusion.sampling import Sampling
from diffground.diffusion.unet_features import group_by_size, stack_branches, tap_features
from diffground.errors import UserError

PROMPTS = [
    "a photograph of a dog",
    "a photograph of a cat and a bus",
    "a photograph of a potted plant",
    "a photograph of a bus and a dog",
]
WORDS = [["dog"], ["cat", "bus"], ["potted plant"], ["bus", "dog"]]
SEEDS = [3, 5, 8, 13]
SETTINGS = Sampling(num_steps=4, guidance_scale=4.0, tapped_step=2)
# Other samples in the batch change the order of sums in float32 matrix products, four steps amplify that.
ATOL = 1e-4
CPU = {"device": torch.device("cpu"), "dtype": torch.float32, "image_size": 32}


@pytest.fixture(scope="module")
def samples(generator: Generator) -> Samples:
    return generator.sample(PROMPTS, SEEDS, SETTINGS)


def test_sampling_equals_the_diffusers_pipeline(checkpoint: Path, samples: Samples) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None, requires_safety_checker=False)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    noise = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    entering = {}
    output = pipeline(
        PROMPTS,
        num_inference_steps=4,
        guidance_scale=4.0,
        height=32,
        width=32,
        generator=noise,
        output_type="np",
        callback_on_step_end=lambda pipe, step, timestep, kwargs: entering.update({step + 1: kwargs["latents"]}) or {},
    )
    expected = (output.images * 255).round().astype(np.uint8)
    assert expected.std() > 10
    assert np.abs(samples.images.astype(int) - expected.astype(int)).max() <= 1
    torch.testing.assert_close(
        samples.latents, entering[2], atol=ATOL, rtol=ATOL
    )  # steps 0 to 3: 2 is the second to last
    assert samples.timestep == int(pipeline.scheduler.timesteps[2])


def test_sampling_without_guidance_equals_the_diffusers_pipeline(checkpoint: Path, generator: Generator) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None, requires_safety_checker=False)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline(
        PROMPTS[0],
        num_inference_steps=3,
        guidance_scale=1.0,
        height=32,
        width=32,
        latents=generator.noise(SEEDS[:1]),
        output_type="np",
    )
    images = generator.sample(PROMPTS[:1], SEEDS[:1], Sampling(3, 1.0, 1)).images
    expected = (output.images * 255).round()
    assert np.abs(images - expected).max() <= 1


def test_same_seed_gives_the_same_bytes_and_another_does_not(generator: Generator, samples: Samples) -> None:
    again = generator.sample(PROMPTS, SEEDS, SETTINGS)
    assert np.array_equal(samples.images, again.images)
    assert torch.equal(samples.latents, again.latents)
    other = generator.sample(PROMPTS[:1], [4], SETTINGS)
    assert not np.array_equal(samples.images[:1], other.images)


def test_sampling_four_at_once_equals_four_times_one(generator: Generator, samples: Samples) -> None:
    for i in range(4):
        alone = generator.sample(PROMPTS[i : i + 1], SEEDS[i : i + 1], SETTINGS)
        assert np.abs(alone.images[0].astype(int) - samples.images[i].astype(int)).max() <= 1
        torch.testing.assert_close(alone.latents[0], samples.latents[i], atol=ATOL, rtol=ATOL)


def test_bfloat16_images_are_those_of_float32_and_of_any_batch_up_to_its_rounding(
    checkpoint: Path, samples: Samples
) -> None:
    # bfloat16 keeps 8 bits: a rounding is 0.4 % of a value, and other samples in the batch may round otherwise
    coarse = Generator.load(str(checkpoint), **{**CPU, "dtype": torch.bfloat16})
    together = coarse.sample(PROMPTS, SEEDS, SETTINGS)
    assert (together.latents.dtype, together.images.dtype) == (torch.float32, np.uint8)
    assert not np.array_equal(together.images, samples.images)
    assert np.abs(together.images.astype(int) - samples.images.astype(int)).mean() < 2
    for i in range(4):
        alone = coarse.sample(PROMPTS[i : i + 1], SEEDS[i : i + 1], SETTINGS)
        assert np.abs(alone.images[0].astype(int) - together.images[i].astype(int)).mean() < 2
        torch.testing.assert_close(alone.latents[0], together.latents[i], atol=0.1, rtol=0.02)


def test_features_read_in_bfloat16_are_float32_and_those_of_float32_up_to_its_rounding(
    checkpoint: Path, generator: Generator, samples: Samples
) -> None:
    coarse = Generator.load(str(checkpoint), **{**CPU, "dtype": torch.bfloat16})
    read, expected = (
        g.features(samples.latents, PROMPTS, timestep=samples.timestep, tap=Tap(words=WORDS))
        for g in (coarse, generator)
    )
    assert read.attention is not None
    assert expected.attention is not None
    pairs = [(read.maps[size], expected.maps[size]) for size in (4, 8, 16)]
    for actual, wanted in [*pairs, (read.attention, expected.attention), (read.clean, expected.clean)]:
        assert actual.dtype == torch.float32
        assert 0 < float((actual - wanted).norm() / wanted.norm()) < 0.03


@pytest.mark.parametrize("branches", ["conditional", "both"])
def test_features_of_four_equal_four_times_one(generator: Generator, samples: Samples, branches: str) -> None:
    together = generator.features(samples.latents, PROMPTS, timestep=samples.timestep, tap=Tap(branches, WORDS))
    assert together.attention is not None
    assert list(together.maps) == [4, 8, 16]
    for i in range(4):
        tap = Tap(branches, WORDS[i : i + 1])
        latents = samples.latents[i : i + 1]
        alone = generator.features(latents, PROMPTS[i : i + 1], timestep=samples.timestep, tap=tap)
        for size, maps in alone.maps.items():
            torch.testing.assert_close(maps[0], together.maps[size][i], atol=ATOL, rtol=ATOL)
        assert alone.attention is not None
        num_words = len(WORDS[i])
        torch.testing.assert_close(alone.attention[0], together.attention[i, :num_words], atol=1e-5, rtol=ATOL)
        assert not together.attention[i, num_words:].any(), "a padded word has no attention"


@pytest.mark.parametrize("change", [{}, {"guidance_scale": 1.0}, {"guidance_interval": (999, 600)}])
@pytest.mark.parametrize("branches", ["conditional", "both"])
def test_features_read_in_sampling_equal_those_of_another_pass(
    generator: Generator, branches: str, change: dict[str, Any]
) -> None:
    sampling, tap = replace(SETTINGS, **change), Tap(branches, WORDS)
    plain = generator.sample(PROMPTS, SEEDS, sampling)
    tapped = generator.sample(PROMPTS, SEEDS, sampling, tap=tap)
    assert plain.features is None
    assert np.abs(tapped.images.astype(int) - plain.images.astype(int)).max() <= 1
    read, expected = tapped.features, generator.features(plain.latents, PROMPTS, timestep=plain.timestep, tap=tap)
    assert read is not None and read.attention is not None and read.clean is not None
    assert list(read.maps) == list(expected.maps)
    for size, maps in expected.maps.items():
        torch.testing.assert_close(read.maps[size], maps, atol=ATOL, rtol=ATOL)
    torch.testing.assert_close(read.attention, expected.attention, atol=1e-5, rtol=ATOL)
    torch.testing.assert_close(read.clean, expected.clean, atol=ATOL, rtol=ATOL)


def test_guidance_in_an_interval_is_that_of_diffusers_in_the_steps_of_the_interval(
    generator: Generator, samples: Samples
) -> None:
    timesteps = generator.timesteps(SETTINGS)  # four
    latents, scheduler = generator.noise(SEEDS), generator.scheduler(4)
    guided, plain = generator.predictor(PROMPTS, guidance_scale=4.0), generator.predictor(PROMPTS)
    for i, timestep in enumerate(timesteps):
        predicted = (guided if i in (1, 2) else plain)(latents, timestep)
        latents = scheduler.step(predicted, timestep, latents).prev_sample
    inside = replace(SETTINGS, guidance_interval=(timesteps[1], timesteps[2]))
    images = generator.sample(PROMPTS, SEEDS, inside).images
    assert np.abs(images.astype(int) - generator.decode(latents)).max() <= 1
    assert np.abs(images.astype(int) - samples.images).max() > 1
    everywhere = replace(SETTINGS, guidance_interval=(timesteps[0], timesteps[-1]))
    assert np.array_equal(generator.sample(PROMPTS, SEEDS, everywhere).images, samples.images)


@pytest.mark.parametrize("timesteps", [(), (970, 640, 300, 80)])
def test_dpm_solver_equals_the_diffusers_pipeline(
    checkpoint: Path, generator: Generator, timesteps: tuple[int, ...]
) -> None:
    """Without timesteps of its own it visits those of DDIM, so that tapped latents are of the same noise level."""
    sampling = replace(SETTINGS, sampler="dpmsolver++", timesteps=timesteps)
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    output = pipeline(
        PROMPTS,
        timesteps=list(timesteps) or generator.scheduler(4).timesteps.tolist(),
        guidance_scale=4.0,
        height=32,
        width=32,
        latents=generator.noise(SEEDS),
        output_type="np",
    )
    samples = generator.sample(PROMPTS, SEEDS, sampling)
    assert np.abs(samples.images - (output.images * 255).round()).max() <= 1
    assert samples.timestep == (300 if timesteps else generator.timestep(SETTINGS))
    assert np.abs(samples.images.astype(int) - generator.sample(PROMPTS, SEEDS, SETTINGS).images).max() > 1


def test_stored_latent_gives_the_features_seen_in_sampling(generator: Generator, samples: Samples) -> None:
    with tap_features(generator._unet) as maps:
        generator.sample(PROMPTS, SEEDS, SETTINGS)
    assert len(maps) == 4 * 13
    seen = group_by_size(stack_branches(maps[2 * 13 : 3 * 13]))  # the third of four steps, second from the clean end
    read = generator.features(samples.latents, PROMPTS, timestep=samples.timestep, tap=Tap("both")).maps
    stored = samples.latents.numpy().astype(np.float16)
    from_stored = generator.features(torch.from_numpy(stored), PROMPTS, timestep=samples.timestep, tap=Tap("both")).maps
    for size in (4, 8, 16):
        torch.testing.assert_close(read[size], seen[size], atol=ATOL, rtol=ATOL)
        # float16 keeps 11 bits, so the latents are off by up to 5e-4 of their size
        torch.testing.assert_close(from_stored[size], seen[size], atol=2e-2, rtol=2e-2)


def test_conditional_features_are_the_second_half_of_each_block_output(generator: Generator, samples: Samples) -> None:
    arguments = (samples.latents, PROMPTS)
    one = generator.features(*arguments, timestep=samples.timestep, tap=Tap()).maps
    both = generator.features(*arguments, timestep=samples.timestep, tap=Tap("both")).maps
    # size 16: conv_in, a layer, the upsampler's output that ends the block before, two layers: first map has 8 channels
    torch.testing.assert_close(one[16][:, :8], both[16][:, 8:16], atol=ATOL, rtol=ATOL)
    assert generator.feature_channels("conditional") == {size: m.shape[1] for size, m in one.items()}
    assert generator.feature_channels("both") == {size: m.shape[1] for size, m in both.items()}


def test_feature_channels_agree_with_the_architecture(generator: Generator) -> None:
    # channels (8, 16, 24), one layer a block, two in the up path. Size 16: conv_in 8, layer 8, upsampled 16, 8, 8.
    # Size 8: downsampled 8, layer 16, upsampled 24, layer 16. Size 4: downsampled 16, layer 24, mid 24, layer 24.
    assert generator.feature_channels("conditional") == {4: 88, 8: 64, 16: 48}


def test_attention_maps_are_the_words_share_of_the_probabilities(generator: Generator, samples: Samples) -> None:
    words = [["a", "dog"], ["cat", "unicorn"], ["potted plant"], []]
    attention = generator.features(samples.latents, PROMPTS, timestep=samples.timestep, tap=Tap(words=words)).attention
    assert attention is not None
    assert attention.shape == (4, 2, 7, 16, 16)
    assert generator.num_attention_maps == 7
    assert attention[1, 0].min() >= 0
    assert attention[1, 0].max() <= 1
    assert attention[1, 0].any()
    assert not attention[1, 1].any(), "a word that is not in the prompt has no attention"
    assert not attention[3].any()


def test_attention_follows_the_word(generator: Generator, samples: Samples) -> None:
    read = generator.features(
        samples.latents[1:2], PROMPTS[1:2], timestep=samples.timestep, tap=Tap(words=[["cat", "bus"]])
    )
    swapped = generator.features(
        samples.latents[1:2], PROMPTS[1:2], timestep=samples.timestep, tap=Tap(words=[["bus", "cat"]])
    )
    assert read.attention is not None
    assert swapped.attention is not None
    assert torch.equal(read.attention.flip(1), swapped.attention)
    assert not torch.allclose(read.attention[:, 0], read.attention[:, 1])


def test_category_embedding_is_the_mean_state_of_the_phrases_tokens(generator: Generator) -> None:
    # "a photograph of a potted plant": start, 4 words, then the tokens of the phrase, then the end token
    prompt = "a photograph of a potted plant"
    num_tokens = len(generator.tokenizer(prompt).input_ids)
    expected = generator.embed([prompt])[0, 5 : num_tokens - 1].mean(dim=0)
    assert num_tokens - 6 > 2
    torch.testing.assert_close(generator.category_embedding("potted plant"), expected)
    both = generator.category_embeddings(["dog", "potted plant"])
    assert both.shape == (2, generator.text_dim)
    torch.testing.assert_close(both[1], expected, atol=1e-5, rtol=1e-5)


def test_encoding_is_that_of_the_diffusers_pipelines(checkpoint: Path, generator: Generator) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None)
    pixels = pipeline.image_processor.preprocess((images / 255).astype(np.float32))
    expected = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
    torch.testing.assert_close(generator.encode(images), expected, atol=1e-5, rtol=1e-5)
    for wrong in (images[:, :16], images / 255, images[0]):
        with pytest.raises(ValueError, match=r"uint8 \(B, 32, 32, 3\)"):
            generator.encode(wrong)


def test_the_model_is_frozen(generator: Generator) -> None:
    modules = [generator._unet, generator._vae, *generator._text.encoders]
    assert not any(module.training for module in modules)
    assert not any(p.requires_grad for module in modules for p in module.parameters())


def test_generator_id_changes_with_the_weights_only(checkpoint: Path, generator: Generator, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "pipeline"
    shutil.copytree(checkpoint, copy)
    assert Generator.load(str(copy), **CPU).generator_id == generator.generator_id
    pipeline = StableDiffusionPipeline.from_pretrained(copy, safety_checker=None, requires_safety_checker=False)
    pipeline.unet.conv_in.bias.data.add_(1)
    pipeline.save_pretrained(copy)
    assert Generator.load(str(copy), **CPU).generator_id != generator.generator_id


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, r"num_steps must be 1 to 1000, got 0"),
        ({"num_steps": 1001}, r"num_steps must be 1 to 1000, got 1001"),
        ({"tapped_step": 0}, r"tapped_step must be 1 to num_steps \(4\), got 0"),
        ({"tapped_step": 5}, r"tapped_step must be 1 to num_steps \(4\), got 5"),
        ({"timesteps": (9, 8, 7, 6)}, r"timesteps needs generator.sampler 'dpmsolver\+\+'"),
        ({"sampler": "dpmsolver++", "timesteps": (9, 8)}, r"must be generator.num_steps \(4\) timesteps, got 2"),
        ({"sampler": "dpmsolver++", "timesteps": (9, 8, 8, 6)}, r"timesteps must fall, from at most 999"),
        ({"guidance_interval": (80, 900)}, r"guidance_interval must be empty or .* falling, got \[80, 900\]"),
        ({"sampler": "euler"}, r"sampler must be one of ddim, dpmsolver\+\+, got 'euler'"),
    ],
)
def test_settings_out_of_range_are_refused(generator: Generator, settings: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generator.sample(PROMPTS[:1], SEEDS[:1], replace(SETTINGS, **settings))


def test_prompt_that_does_not_fit_is_refused(generator: Generator) -> None:
    with pytest.raises(UserError, match="must fit into 24 tokens, got 29: 'zzzzz"):
        generator.embed(["a photograph of a dog", "z" * 27])


def test_image_size_must_fit_the_vae(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="multiple of 2 px for this VAE, got 33"):
        Generator.load(str(checkpoint), **{**CPU, "image_size": 33})


def test_missing_checkpoint_is_an_error_that_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder; restore it or set a diffusers pipeline folder") as caught:
        Generator.load(str(tmp_path / "nothing"), **CPU)
    assert "\n" not in str(caught.value)


def test_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model_index.json"):
        Generator.load(str(tmp_path), **CPU)


def test_pickled_weights_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pipeline"
    shutil.copytree(checkpoint, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UserError, match=r"unet has pickled weights only \(diffusion_pytorch_model.bin\)"):
        Generator.load(str(copy), **CPU)


def test_single_checkpoint_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="is a file, must be a diffusers pipeline folder"):
        Generator.load(str(file), **CPU)


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_truncated_weights_are_one_line(checkpoint: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "pipeline"
    shutil.copytree(checkpoint, copy)
    (copy / file).write_bytes((copy / file).read_bytes()[:1000])
    with pytest.raises(UserError, match="does not load as a Stable Diffusion pipeline") as caught:
        Generator.load(str(copy), **CPU)
    assert "\n" not in str(caught.value)


def test_folder_with_a_part_missing_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pipeline"
    shutil.copytree(checkpoint, copy)
    shutil.rmtree(copy / "vae")
    with pytest.raises(UserError, match="does not load as a Stable Diffusion pipeline") as caught:
        Generator.load(str(copy), **CPU)
    assert "\n" not in str(caught.value)
