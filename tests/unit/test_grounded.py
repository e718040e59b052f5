"""GroundedPipeline on a tiny real pipeline with a grounding module of random weights."""

from __future__ import annotations

import json
import shutil
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffground import GroundedPipeline, UserError
from diffground.baselines.daam import sample_with_maps
from diffground.data.images import read_image
from diffground.diffusion.checkpoint import generator_id
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.grounding.checkpoint import Defaults, write_defaults
from diffground.grounding.prediction import Grounder
from tests.unit.diffusion.conftest import IMAGE_SIZE, checkpoint, generator
from tests.unit.toy_grounding import save_toy_grounding

__all__ = ["checkpoint", "generator"]

PROMPTS = ["a photograph of a dog and a cat", "a photograph of a sofa", "a photograph of a cat and a dog"]
WORDS = [["dog", "cat"], ["sofa"], ["dog"]]
STEPS = 3


@pytest.fixture
def folder(checkpoint: Path, generator: Generator, tmp_path: Path) -> Path:
    """A grounding module for `checkpoint`."""
    return save_toy_grounding(
        tmp_path / "grounding",
        generator,
        generator_id=generator_id(str(checkpoint)),
        timestep=generator.timestep(Sampling(STEPS, 2.0, 1)),
        sampling=Sampling(STEPS, 2.0, 1),
    )


@pytest.fixture
def pipe(checkpoint: Path, folder: Path) -> GroundedPipeline:
    return GroundedPipeline.from_pretrained(checkpoint, grounding=folder, device="cpu")


def test_a_call_gives_what_sampling_and_grounding_give(
    pipe: GroundedPipeline, generator: Generator, folder: Path, checkpoint: Path
) -> None:
    out = pipe(PROMPTS[0], words=WORDS[0], seeds=[7])
    samples = generator.sample([PROMPTS[0]], [7], Sampling(STEPS, 2.0, 1))
    loaded = Generator.load(str(checkpoint), device=torch.device("cpu"), dtype=torch.float32, image_size=IMAGE_SIZE)
    [probs] = Grounder.load(folder, generator=loaded, device=torch.device("cpu")).probs(
        latents=samples.latents,
        prompts=[PROMPTS[0]],
        words=[WORDS[0]],
        timestep=samples.timestep,
        image_size=IMAGE_SIZE,
    )
    assert np.array_equal(np.asarray(out.images[0]), samples.images[0])
    np.testing.assert_allclose(out.probs[0], probs.numpy(), atol=1e-5)  # features are read in the sampling itself
    assert np.array_equal(out[0].masks, (out[0].probs >= 0.5) & (out[0].probs.argmax(0) == np.arange(2)[:, None, None]))
    assert (out[0].words, out[0].prompt, out[0].seed) == (("dog", "cat"), PROMPTS[0], 7)


def test_each_prompt_has_its_words_and_does_not_depend_on_its_batch(pipe: GroundedPipeline) -> None:
    together = pipe(PROMPTS, words=WORDS, seeds=[3, 4, 5])
    assert len(together) == 3
    assert (together.masks.shape, together.masks.dtype) == ((3, 2, IMAGE_SIZE, IMAGE_SIZE), np.bool_)
    assert (together.probs.shape, together.probs.dtype) == (together.masks.shape, np.float32)
    assert not together.masks[1:, 1].any() and not together.probs[1:, 1].any(), "missing words are empty"
    for batch_size in (1, 2):
        apart = pipe(PROMPTS, words=WORDS, seeds=[3, 4, 5], batch_size=batch_size)
        np.testing.assert_allclose(apart.probs, together.probs, atol=1e-5)
        for image, same in zip(apart.images, together.images, strict=True):
            assert np.abs(np.asarray(image, dtype=int) - np.asarray(same, dtype=int)).max() <= 1


def test_a_stream_reads_its_samples_as_they_are_needed_and_gives_what_a_call_gives(pipe: GroundedPipeline) -> None:
    endless = ((place, seed) for seed in count(4) for place in (2, 0))
    found = list(islice(pipe.stream(PROMPTS, words=WORDS, samples=endless, batch_size=1), 3))
    assert [(sample.prompt, sample.seed) for sample in found] == [(PROMPTS[2], 4), (PROMPTS[0], 4), (PROMPTS[2], 5)]
    called = pipe([PROMPTS[2], PROMPTS[0]], words=[WORDS[2], WORDS[0]], seeds=[4, 4], batch_size=1)
    for sample, same in zip(found, called, strict=False):
        assert np.array_equal(sample.probs, same.probs) and np.array_equal(sample.masks, same.masks)


def test_words_may_be_those_of_all_prompts(pipe: GroundedPipeline) -> None:
    pair = [PROMPTS[0], PROMPTS[2]]
    shared, listed = pipe(pair, words=["dog", "cat"]), pipe(pair, words=[["dog", "cat"]] * 2, seeds=[0, 1])
    assert np.array_equal(shared.probs, listed.probs)


def test_overlaps_are_resolved_unless_they_are_wanted(pipe: GroundedPipeline) -> None:
    threshold = 1e-6
    disjoint = pipe(PROMPTS[0], words=WORDS[0], mask_threshold=threshold).masks[0]
    free = pipe(PROMPTS[0], words=WORDS[0], mask_threshold=threshold, resolve_overlaps=False).masks[0]
    assert free.all()
    assert (disjoint.sum(axis=0) == 1).all()


def test_defaults_json_changes_the_calls_and_not_the_weights(checkpoint: Path, folder: Path) -> None:
    before = GroundedPipeline.from_pretrained(checkpoint, grounding=folder, device="cpu")
    assert before.defaults == Defaults(Sampling(STEPS, 2.0, 1), 0.5)
    write_defaults(folder, Defaults(Sampling(2, 1.0, 1), 0.25))
    after = GroundedPipeline.from_pretrained(checkpoint, grounding=folder, device="cpu")
    given = before(PROMPTS[1], words=["sofa"], num_steps=2, guidance_scale=1.0, mask_threshold=0.25)
    assert np.array_equal(after(PROMPTS[1], words=["sofa"]).masks, given.masks)
    (folder / "defaults.json").write_text('{"num_steps": 2}')
    with pytest.raises(UserError, match=r"defaults.json: must hold sampling and mask_threshold"):
        GroundedPipeline.from_pretrained(checkpoint, grounding=folder, device="cpu")


def test_the_tapped_step_is_the_closest_to_the_trained_timestep(pipe: GroundedPipeline) -> None:
    for num_steps in (STEPS, 7, 20):
        sampling = Sampling(num_steps, 2.0, 1)
        timesteps = pipe.generator.timesteps(sampling)
        picked = timesteps[-pipe._tapped_step(sampling)]
        trained = pipe._spec.timestep if pipe._spec else -1
        assert abs(picked - trained) == min(abs(timestep - trained) for timestep in timesteps)


@pytest.mark.parametrize("size", [(IMAGE_SIZE, IMAGE_SIZE), (50, 20), (7, 90)])
def test_a_real_image_of_any_size_gives_masks_of_its_own_size(
    pipe: GroundedPipeline, size: tuple[int, int], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "real image.png")
    found = [
        pipe.segment(image, words=["dog", "cat"])
        for image in (pixels, Image.fromarray(pixels), tmp_path / "real image.png", str(tmp_path / "real image.png"))
    ]
    for sample in found:
        assert sample.masks.shape == sample.probs.shape == (2, size[1], size[0])
        assert np.array_equal(sample.probs, found[0].probs)
        assert np.array_equal(np.asarray(sample.image), pixels)
        assert sample.overlay().size == size
    assert found[0].prompt == "a photograph of a dog and a cat"
    captioned = pipe.segment(pixels, words=["dog", "cat"], prompt="my dog with a cat")
    assert not np.array_equal(captioned.probs, found[0].probs)


def test_images_are_read_upright_and_in_rgb(tmp_path: Path) -> None:
    array = np.zeros((4, 8, 3), dtype=np.uint8)
    array[:, :4] = (200, 10, 10)
    turned = Image.fromarray(array)
    exif = turned.getexif()
    exif[0x0112] = 6  # a quarter turn to the right
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.rot90(array, -1))
    assert read_image(Image.fromarray(array).convert("CMYK")).shape == (4, 8, 3)
    assert np.array_equal(read_image(array[..., 0]), np.repeat(array[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("none.png", "none.png: no such image"),
        (np.zeros((4, 4, 4), np.uint8), r"must be whole numbers \(H, W\) or \(H, W, 3\), got uint8 \(4, 4, 4\)"),
        (np.zeros((4, 4, 3)), "got float64"),
        (np.full((4, 4, 3), 300), "must have values of 0..255, got 300..300"),
        (np.zeros((0, 4, 3), np.uint8), "must be whole numbers"),
    ],
)
def test_what_is_no_image_is_one_line(pipe: GroundedPipeline, image: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pipe.segment(image, words=["dog"])  # type: ignore[arg-type]


def test_a_file_that_is_no_image_is_named(pipe: GroundedPipeline, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(UserError, match=r"text.png: not an image that can be read"):
        pipe.segment(tmp_path / "text.png", words=["dog"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"words": ["bus"]}, "the prompt 'a photograph of a sofa' does not contain the words 'bus'"),
        ({"words": "sofa"}, r"words must be a list of words, got the text 'sofa'; write \['sofa'\]"),
        ({"words": []}, "every prompt needs at least one word"),
        ({"words": [["sofa"], ["sofa"]]}, r"one list for all prompts or one per prompt \(1\), got 2 lists"),
        ({"words": ["sofa", "sofa"]}, "words name 'sofa' twice"),
        ({"words": ["sofa"], "seeds": [1, 2]}, r"seeds must be one number per prompt, 0 or more; got \[1, 2\] for 1"),
        ({"words": ["sofa"], "seeds": [-1]}, r"0 or more; got \[-1\]"),
        ({"words": ["sofa"], "mask_threshold": 0.0}, "mask_threshold must be above 0 and at most 1, got 0"),
        ({"words": ["sofa"], "num_steps": 0}, "num_steps must be at least 1, guidance_scale not negative, got 0 and 2"),
        ({"words": ["sofa"], "tapped_step": 9}, r"tapped_step must be 1 to num_steps \(3\), got 9"),
        ({"words": ["sofa"], "batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_a_call_that_does_not_fit_is_one_line(pipe: GroundedPipeline, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        pipe(PROMPTS[1], **arguments)
    assert "\n" not in str(caught.value)


def test_a_module_of_another_generator_is_refused_and_both_are_named(
    checkpoint: Path, folder: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "_diffusers_version": "0.0.0"}))
    names = (generator_id(str(checkpoint)), generator_id(str(other)))
    with pytest.raises(UserError, match=f"was trained on generator '{names[0]}', this one is '{names[1]}'"):
        GroundedPipeline.from_pretrained(other, grounding=folder, device="cpu")
    allowed = GroundedPipeline.from_pretrained(other, grounding=folder, device="cpu", allow_other_generator=True)
    assert allowed(PROMPTS[1], words=["sofa"]).masks.shape == (1, 1, IMAGE_SIZE, IMAGE_SIZE)


def test_without_a_module_words_are_found_by_daam(checkpoint: Path, generator: Generator) -> None:
    pipe = GroundedPipeline.from_pretrained(checkpoint, grounding=None, device="cpu", image_size=IMAGE_SIZE)
    with pytest.raises(UserError, match="mask_threshold is needed"):
        pipe(PROMPTS[1], words=["sofa"])
    settings = {"num_steps": STEPS, "guidance_scale": 2.0}
    with pytest.raises(UserError, match="has no defaults: give both"):
        pipe(PROMPTS[1], words=["sofa"], mask_threshold=0.5)
    found = pipe(PROMPTS[1], words=["sofa"], mask_threshold=0.5, **settings)
    _, maps = sample_with_maps(generator, [PROMPTS[1]], [0], [["sofa"]], Sampling(STEPS, 2.0, 1))
    assert np.array_equal(found.probs, maps)
    with pytest.raises(UserError, match="segment needs a grounding module"):
        pipe.segment(np.zeros((8, 8, 3), np.uint8), words=["sofa"])
