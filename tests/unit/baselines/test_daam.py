"""DAAM: heat maps that do not depend on the batch, and the threshold with the best IoU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from diffground.baselines.daam import choose_layers, choose_threshold, heat_maps, sample_with_maps
from diffground.diffusion.cross_attention import observe_cross_attention
from diffground.diffusion.generator import Generator
from diffground.diffusion.sampling import Sampling
from diffground.diffusion.textual_inversion import add_textual_inversion
from diffground.errors import UserError
from diffground.vocabulary import photograph_of
from tests.unit.diffusion.conftest import IMAGE_SIZE, build_pipeline

PHRASES = [["dog", "bus"], ["potted plant"], ["cat"], ["bus", "potted plant"]]
PROMPTS = [photograph_of(*phrases) for phrases in PHRASES]
SEEDS = [1, 2, 3, 4]
SETTINGS = Sampling(num_steps=3, guidance_scale=4.0, tapped_step=1)


def test_maps_of_a_batch_equal_those_one_by_one(generator: Generator) -> None:
    images, together = sample_with_maps(generator, PROMPTS, SEEDS, PHRASES, SETTINGS)
    np.testing.assert_allclose(images, generator.sample(PROMPTS, SEEDS, SETTINGS).images, atol=1)
    assert together.shape == (4, 2, 32, 32)
    for i in range(4):
        _, alone = sample_with_maps(generator, PROMPTS[i : i + 1], SEEDS[i : i + 1], PHRASES[i : i + 1], SETTINGS)
        # normalising to 0..1 enlarges differences of the probabilities by the inverse of their range
        np.testing.assert_allclose(alone[0], together[i, : len(PHRASES[i])], atol=2e-3)
        assert not together[i, len(PHRASES[i]) :].any()


def test_each_map_runs_from_zero_to_one(generator: Generator) -> None:
    _, maps = sample_with_maps(generator, PROMPTS[:1], SEEDS[:1], PHRASES[:1], SETTINGS)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps.min(axis=(2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(maps.max(axis=(2, 3)), 1, atol=1e-6)
    assert not np.allclose(maps[0, 0], maps[0, 1])


def test_map_is_the_mean_over_steps_heads_and_the_published_layers(generator: Generator) -> None:
    expected = written_out(generator, PROMPTS[0], [5])  # "dog", after the start token and four words
    actual = sample_with_maps(generator, PROMPTS[:1], SEEDS[:1], [["dog"]], SETTINGS)[1][0, 0]
    np.testing.assert_allclose(actual, expected, atol=2e-3)


@pytest.mark.parametrize("num_vectors", [1, 2])
def test_map_of_a_personal_word_is_that_of_its_own_tokens(num_vectors: int, tmp_path: Path) -> None:
    pipeline = build_pipeline()
    vectors = torch.linspace(-20, 20, num_vectors * 16).view(num_vectors, 16)
    save_file({"emb_params": vectors}, tmp_path / "rex.safetensors")
    phrase = add_textual_inversion(pipeline, tmp_path / "rex.safetensors", token="<rex>")
    generator = Generator(pipeline, image_size=IMAGE_SIZE, generator_id="")
    prompt = photograph_of(phrase, "dog")
    # the start token and "a photograph of a" come before it, and it has a token a vector
    positions = [5 + i for i in range(num_vectors)]
    ids = pipeline.tokenizer(prompt).input_ids
    assert pipeline.tokenizer.convert_ids_to_tokens([ids[i] for i in positions]) == phrase.split()
    personal, dog = sample_with_maps(generator, [prompt], SEEDS[:1], [[phrase, "dog"]], SETTINGS)[1][0]
    np.testing.assert_allclose(personal, written_out(generator, prompt, positions), atol=2e-3)
    assert not np.allclose(personal, dog, atol=0.05)


def written_out(generator: Generator, prompt: str, positions: list[int]) -> np.ndarray:
    """The map of these token positions with seed SEEDS[0]: every probability kept, averaged at the end."""
    seen: list[torch.Tensor] = []
    names = generator.cross_attention_names
    published = [i for i, name in enumerate(names) if name.endswith("attn2") and "mid_block" not in name]
    assert 0 < len(published) < len(names)

    def keep(layer: int, probs: torch.Tensor) -> None:
        if layer not in published:
            return
        side = int(probs.shape[2] ** 0.5)
        # sample 1 of (unconditional, conditional)
        heads = probs[1][:, :, positions].mean(dim=2).view(1, -1, side, side)
        seen.append(F.interpolate(heads, size=(16, 16), mode="bicubic").mean(dim=1))

    with observe_cross_attention(generator._unet, keep):
        generator.sample([prompt], SEEDS[:1], SETTINGS)
    assert len(seen) == 3 * len(published)
    mean = F.interpolate(torch.stack(seen).mean(dim=0)[None], size=(32, 32), mode="bicubic")[0, 0].numpy()
    return (mean - mean.min()) / (mean.max() - mean.min())


def test_the_layers_chosen_are_those_that_fit_together() -> None:
    # The object is the left half. Layers 0 and 1 each see a part of it, layer 2 sees the rest of the image.
    upper, lower, right = (torch.zeros(8, 8) for _ in range(3))
    upper[:5, :4], lower[3:, :4], right[:, 4:] = 1, 1, 1
    mask = np.zeros((8, 8), dtype=bool)
    mask[:, :4] = True
    chosen = choose_layers(torch.stack([upper, lower, right]).expand(3, -1, -1, -1), np.stack([mask] * 3))
    assert chosen == [0, 1]
    assert choose_layers(torch.stack([right, mask_map := torch.from_numpy(mask).float()])[None], mask[None]) == [1]
    assert torch.equal(heat_maps(torch.stack([right, mask_map])[[1]], 8), mask_map)


def test_threshold_has_the_best_iou() -> None:
    # Pixels 0.2 0.4 0.6 0.8, the last two in the mask: from above 0.4 up to 0.6 the IoU is 1.
    maps, masks = [np.array([[0.2, 0.4], [0.6, 0.8]])], [np.array([[False, False], [True, True]])]
    assert 0.4 < choose_threshold(maps, masks) <= 0.6


def test_threshold_pools_pixels_of_all_maps() -> None:
    # At 0.5: all five pixels predicted, 3 of 5 right. Above: 0.9 and 0.7 predicted, 2 of the 3 mask pixels, no other.
    maps = [np.array([0.9]), np.array([0.7, 0.5, 0.5, 0.5])]
    masks = [np.array([True]), np.array([True, True, False, False])]
    assert 0.5 < choose_threshold(maps, masks) <= 0.7


def test_threshold_agrees_with_trying_them_all() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.random((8, 8)) < 0.3 for _ in range(5)]
    maps = [np.clip(mask * 0.3 + rng.random((8, 8)) * 0.7, 0, 1) for mask in masks]

    def iou(threshold: float) -> float:
        predicted = [m >= threshold for m in maps]
        hits = sum((p & m).sum() for p, m in zip(predicted, masks, strict=True))
        return hits / sum((p | m).sum() for p, m in zip(predicted, masks, strict=True))

    grid = np.linspace(0, 1, 101)[:-1]
    assert choose_threshold(maps, masks) == max(grid, key=iou)


def test_pixels_below_zero_are_never_predicted_but_missed() -> None:
    # At 0.7: 1 of 3 mask pixels, no other. At 0.1 the other value joins, which is wrong; the two at -1 stay out.
    maps, masks = [np.array([0.7, -1.0, -1.0, 0.1, 0.1])], [np.array([True, True, True, False, False])]
    assert 0.1 < choose_threshold(maps, masks) <= 0.7


def test_threshold_without_any_mask_is_refused() -> None:
    with pytest.raises(UserError, match=r"daam.num_calibration"):
        choose_threshold([np.zeros((2, 2))], [np.zeros((2, 2), dtype=bool)])
    with pytest.raises(UserError, match=r"daam.num_calibration"):
        choose_threshold([], [])
