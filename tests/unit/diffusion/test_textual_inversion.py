"""A learned embedding becomes a word: it works in prompts, other words keep their states, foreign files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from diffground import GroundedPipeline
from diffground.diffusion.generator import Generator
from diffground.diffusion.textual_inversion import add_textual_inversion
from diffground.errors import UserError
from diffground.prompts import token_spans
from tests.unit.diffusion.architectures import build_sdxl
from tests.unit.diffusion.conftest import IMAGE_SIZE, build_pipeline

EMBEDDING = torch.linspace(-20, 20, 16)


@pytest.fixture
def pipeline() -> StableDiffusionPipeline:
    return build_pipeline()


def saved(folder: Path, tensors: dict[str, torch.Tensor], name: str = "learned.safetensors") -> Path:
    save_file(tensors, folder / name)
    return folder / name


def row_of(pipeline: StableDiffusionPipeline, token: str) -> torch.Tensor:
    weight = pipeline.text_encoder.get_input_embeddings().weight
    return weight[pipeline.tokenizer.convert_tokens_to_ids(token)].detach()


@pytest.mark.parametrize(
    ("key", "token", "phrase"),
    [
        ("<rex>", None, "<rex>"),  # diffusers
        ("<rex>", "<mydog>", "<mydog>"),
        ("emb_params", "<mydog>", "<mydog>"),  # AUTOMATIC1111
        ("emb_params", None, "learned"),
        ("string_to_param.*", None, "learned"),
    ],
)
def test_one_vector_becomes_one_word(
    pipeline: StableDiffusionPipeline, tmp_path: Path, key: str, token: str | None, phrase: str
) -> None:
    shape = (1, 16) if key == "emb_params" else (16,)
    path = saved(tmp_path, {key: EMBEDDING.reshape(shape)})
    assert add_textual_inversion(pipeline, path, token=token) == phrase
    torch.testing.assert_close(row_of(pipeline, phrase), EMBEDDING)
    (positions,) = token_spans(pipeline.tokenizer, f"a photograph of a {phrase} and a dog", [phrase])
    assert len(positions) == 1


def test_several_vectors_become_a_phrase(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    vectors = torch.stack([EMBEDDING, 2 * EMBEDDING, -EMBEDDING])
    phrase = add_textual_inversion(pipeline, saved(tmp_path, {"emb_params": vectors}), token="<rex>")
    assert phrase == "<rex> <rex>_1 <rex>_2"
    for word, vector in zip(phrase.split(), vectors, strict=True):
        torch.testing.assert_close(row_of(pipeline, word), vector)
    prompt = f"a photograph of a {phrase} and a dog"
    (positions,) = token_spans(pipeline.tokenizer, prompt, [phrase])
    ids = pipeline.tokenizer(prompt).input_ids
    assert [ids[i] for i in positions] == pipeline.tokenizer.convert_tokens_to_ids(phrase.split())


def test_a_word_inside_a_personal_one_is_not_it(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    phrase = add_textual_inversion(pipeline, saved(tmp_path, {"emb_params": EMBEDDING}), token="<my-dog>")
    ids = pipeline.tokenizer("a <my-dog> and a dog").input_ids
    personal, dog = token_spans(pipeline.tokenizer, "a <my-dog> and a dog", [phrase, "dog"])
    assert pipeline.tokenizer.convert_ids_to_tokens([ids[i] for i in (*personal, *dog)]) == ["<my-dog>", "dog</w>"]


def test_other_prompts_keep_their_states(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    prompts = ["", "a photograph of a dog", "a photograph of a potted plant"]
    before = Generator(build_pipeline(), image_size=IMAGE_SIZE, generator_id="").embed(prompts)
    random_state = torch.get_rng_state()
    phrase = add_textual_inversion(pipeline, saved(tmp_path, {"<rex>": EMBEDDING}))
    assert torch.equal(torch.get_rng_state(), random_state)
    generator = Generator(pipeline, image_size=IMAGE_SIZE, generator_id="")
    assert torch.equal(generator.embed(prompts), before)
    assert not torch.allclose(generator.category_embedding(phrase), generator.category_embedding("dog"))


@pytest.mark.parametrize(
    ("tensors", "token", "message"),
    [
        ({"<rex>": torch.zeros(8)}, None, "have 8 numbers, those of this text encoder 16"),
        ({"clip_l": torch.zeros(16), "clip_g": torch.zeros(16)}, None, r"got 2 \(clip_g, clip_l\)"),
        ({"<rex>": torch.zeros(1, 1, 16)}, None, r"got \(1, 1, 16\)"),
        ({"<rex>": torch.full((16,), torch.nan)}, None, "finite"),
        ({"<rex>": torch.zeros(0, 16)}, None, r"got \(0, 16\)"),
        ({"<rex>": EMBEDDING}, "my dog", "without spaces, got 'my dog'"),
        ({"<rex>": EMBEDDING}, "dog", "'dog' is a word of the tokenizer already"),
        ({"<rex>": EMBEDDING}, "x", "'x' is a word of the tokenizer already"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_added(
    pipeline: StableDiffusionPipeline, tmp_path: Path, tensors: dict[str, torch.Tensor], token: str, message: str
) -> None:
    num_tokens = len(pipeline.tokenizer)
    with pytest.raises(UserError, match=message):
        add_textual_inversion(pipeline, saved(tmp_path, tensors), token=token)
    assert len(pipeline.tokenizer) == num_tokens
    assert pipeline.text_encoder.get_input_embeddings().num_embeddings == num_tokens


def test_the_same_word_twice_is_refused(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    path = saved(tmp_path, {"<rex>": EMBEDDING})
    add_textual_inversion(pipeline, path)
    with pytest.raises(UserError, match="'<rex>' is a word of the tokenizer already"):
        add_textual_inversion(pipeline, path)


def test_files_that_are_missing_pickled_or_damaged_are_refused(
    pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    torch.save({"<rex>": EMBEDDING}, tmp_path / "learned.bin")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x10\x00")
    for name, message in (
        ("learned.bin", "must be a .safetensors file"),
        ("none.safetensors", "no such file"),
        ("damaged.safetensors", "not a safetensors file"),
    ):
        with pytest.raises(UserError, match=message):
            add_textual_inversion(pipeline, tmp_path / name)


def test_the_two_encoders_of_xl_get_a_vector_each(tmp_path: Path) -> None:
    pipeline = build_sdxl()
    first, second = torch.linspace(-20, 20, 2 * 16).reshape(2, 16), torch.linspace(-20, 20, 2 * 24).reshape(2, 24)
    path = saved(tmp_path, {"clip_g": second, "clip_l": first}, name="rex.safetensors")
    phrase = add_textual_inversion(pipeline, path)
    assert phrase == "rex rex_1"
    for tokenizer, encoder, vectors in (
        (pipeline.tokenizer, pipeline.text_encoder, first),
        (pipeline.tokenizer_2, pipeline.text_encoder_2, second),
    ):
        rows = encoder.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(phrase.split())]
        torch.testing.assert_close(rows.detach(), vectors)
    before = Generator(build_sdxl(), image_size=128, generator_id="").embed(["a dog"])
    generator = Generator(pipeline, image_size=128, generator_id="")
    assert torch.equal(generator.embed(["a dog"]), before)
    assert not torch.allclose(generator.embed([f"a {phrase}"]), generator.embed(["a dog"]))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"clip_l": torch.zeros(16)},
            "must hold clip_l and clip_g, as this generator has two .* got clip_l;",
        ),
        ({"<rex>": torch.zeros(16)}, "got <rex>; give a textual inversion for Stable Diffusion XL"),
        ({"clip_l": torch.zeros(16), "clip_g": torch.zeros(16)}, "have 16 numbers, those of this text encoder 24"),
        ({"clip_l": torch.zeros(1, 16), "clip_g": torch.zeros(2, 24)}, "same number of vectors"),
    ],
)
def test_what_does_not_fit_xl_is_refused_and_nothing_is_added(
    tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    pipeline = build_sdxl()
    num_tokens = len(pipeline.tokenizer)
    with pytest.raises(UserError, match=message):
        add_textual_inversion(pipeline, saved(tmp_path, tensors), token="<rex>")
    assert len(pipeline.tokenizer) == len(pipeline.tokenizer_2) == num_tokens


def test_the_public_pipeline_of_xl_takes_an_inversion(tmp_path: Path) -> None:
    build_sdxl().save_pretrained(tmp_path / "pipeline")
    path = saved(tmp_path, {"clip_l": torch.linspace(-20, 20, 16), "clip_g": torch.linspace(-20, 20, 24)})
    pipe = GroundedPipeline.from_pretrained(
        tmp_path / "pipeline", grounding=None, device="cpu", textual_inversions={"<rex>": path}
    )
    out = pipe("a <rex> and a dog", words=["<rex>"], num_steps=1, guidance_scale=3, mask_threshold=0.5)
    assert out[0].masks.shape == (1, 128, 128)
