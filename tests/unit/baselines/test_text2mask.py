"""From Text to Mask: maps that do not depend on the batch, label maps by hand, a threshold that fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from diffground.baselines.text2mask import Text2Mask, choose_label_threshold, image_level_labels, label_map
from diffground.diffusion.cross_attention import observe_cross_attention
from diffground.diffusion.generator import Generator
from diffground.diffusion.self_attention import observe_self_attention
from diffground.diffusion.textual_inversion import add_textual_inversion
from diffground.errors import UserError
from tests.unit.diffusion.conftest import IMAGE_SIZE, build_pipeline

PHRASES = [["dog", "bus"], ["potted plant"], [], ["cat"]]
SIZES = [(32, 32), (40, 60), (32, 32), (20, 32)]
SEEDS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture
def method(generator: Generator) -> Text2Mask:
    return Text2Mask(generator=generator, noise_frac=0.3, word_sizes=(), num_noises=2, power=2, max_affinity_size=8)


def test_maps_of_a_batch_equal_those_one_by_one(method: Text2Mask, images: list[np.ndarray]) -> None:
    together = method.maps(images, PHRASES, SEEDS)
    assert [m.shape for m in together] == [(2, 32, 32), (1, 40, 60), (0, 32, 32), (1, 20, 32)]
    assert all(m.dtype == np.float32 for m in together)
    for i in range(4):
        alone = method.maps(images[i : i + 1], PHRASES[i : i + 1], SEEDS[i : i + 1])[0]
        # normalising to 0..1 enlarges differences of the probabilities by the inverse of their range
        np.testing.assert_allclose(alone, together[i], atol=5e-4)


def test_each_map_runs_from_zero_to_one(method: Text2Mask, images: list[np.ndarray]) -> None:
    maps = method.maps(images[:1], PHRASES[:1], SEEDS[:1])[0]
    np.testing.assert_allclose(maps.min(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(maps.max(axis=(1, 2)), 1, atol=1e-6)
    assert not np.allclose(maps[0], maps[1], atol=0.05)


def test_the_seed_decides(method: Text2Mask, images: list[np.ndarray]) -> None:
    first, again, other = (method.maps(images[:1], PHRASES[:1], [seed])[0] for seed in (1, 1, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-3)


@pytest.mark.parametrize("power", [0, 2])
def test_map_is_the_mean_of_refined_attention_over_noises(
    method: Text2Mask, images: list[np.ndarray], power: int
) -> None:
    # Written out for "dog", token 5 after the start token and four words; layers of 16 px alone.
    generator = method.generator
    pixels = torch.from_numpy(images[0]).permute(2, 0, 1)[None].float() / 127.5 - 1
    draws = torch.Generator().manual_seed(7)
    noises = torch.randn((2, 4, 16, 16), generator=draws)
    alpha = generator.scheduler(1).alphas_cumprod[300]  # 0.3 of 999 is 299.7
    text = generator.embed(["a photograph of a dog and a bus"])
    refined = []
    for noise in noises:
        words, pixel_pairs = [], []
        with (
            torch.no_grad(),
            observe_cross_attention(generator._unet, lambda layer, p, kept=words: kept.append(p[0, :, :, 5])),
            observe_self_attention(generator._unet, lambda layer, p, kept=pixel_pairs: kept.append(p[0]), max_size=8),
        ):
            clean = generator._vae.encode(pixels).latent_dist.mean * 0.5  # the scaling factor of this VAE
            noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
            generator._unet(noisy, 300, encoder_hidden_states=text)
        dog = torch.stack([w.mean(dim=0) for w in words if w.shape[1] == 256]).mean(dim=0)  # (256,)
        dog = dog.view(1, 1, 16, 16)
        if power:
            affinity = torch.stack([p.mean(dim=0) for p in pixel_pairs if p.shape[1] == 64]).mean(dim=0)
            small = F.interpolate(dog, size=(8, 8), mode="bilinear", antialias=True)
            spread = torch.linalg.matrix_power(affinity, power) @ small.flatten()
            dog = F.interpolate(spread.view(1, 1, 8, 8), size=(16, 16), mode="bilinear")
        refined.append(dog)
    mean = F.interpolate(sum(refined), size=(32, 32), mode="bilinear")[0, 0].numpy()
    expected = (mean - mean.min()) / (mean.max() - mean.min())
    actual = replace(method, word_sizes=(16,), power=power).maps(images[:1], [["dog", "bus"]], [7])[0]
    np.testing.assert_allclose(actual[0], expected, atol=2e-3)


def test_a_personal_word_has_a_map_of_its_own(images: list[np.ndarray], tmp_path: Path) -> None:
    pipeline = build_pipeline()
    save_file({"emb_params": torch.linspace(-20, 20, 16)}, tmp_path / "rex.safetensors")
    phrase = add_textual_inversion(pipeline, tmp_path / "rex.safetensors", token="<rex>")
    method = Text2Mask(
        generator=Generator(pipeline, image_size=IMAGE_SIZE, generator_id=""),
        noise_frac=0.1,
        word_sizes=(),
        num_noises=1,
        power=1,
        max_affinity_size=8,
    )
    maps = method.maps(images[:1], [[phrase, "dog"]], [0])[0]
    assert np.ptp(maps[0]) == pytest.approx(1, abs=1e-6)
    assert not np.allclose(maps[0], maps[1], atol=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_frac": 1.5}, "noise_frac must be 0 to 1, got 1.5"),
        ({"noise_frac": -0.1}, "noise_frac must be 0 to 1"),
        ({"num_noises": 0}, "num_noises must be at least 1, got 0"),
        ({"power": -1}, "power must be at least 0"),
        ({"max_affinity_size": 0}, "max_affinity_size must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(method: Text2Mask, change: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(method, **change)


def test_settings_that_leave_no_layer_are_refused(method: Text2Mask, images: list[np.ndarray]) -> None:
    with pytest.raises(UserError, match=r"word_sizes must name some of this UNet's \(4, 8, 16\), got \(32,\)"):
        replace(method, word_sizes=(32,)).maps(images[:1], PHRASES[:1], SEEDS[:1])
    with pytest.raises(UserError, match="max_affinity_size is 3"):
        replace(method, max_affinity_size=3).maps(images[:1], PHRASES[:1], SEEDS[:1])
    assert replace(method, max_affinity_size=3, power=0).maps(images[:1], PHRASES[:1], SEEDS[:1])


def test_label_map_by_hand() -> None:
    maps = np.array([[[0.9, 0.2, 0.4, 0.5]], [[0.1, 0.8, 0.3, 0.0]]], dtype=np.float32)
    assert label_map(maps, [12, 6], threshold=0.5).tolist() == [[12, 6, 0, 12]]
    assert label_map(maps, [12, 6], threshold=0.5, uncertain_band=0.2).tolist() == [[12, 6, 255, 255]]
    assert label_map(maps, [12, 6], threshold=0.95).tolist() == [[0, 0, 0, 0]]
    assert label_map(maps, [12, 6], threshold=0.5).dtype == np.uint8
    assert label_map(maps[:0], [], threshold=0.5).tolist() == [[0, 0, 0, 0]]


def test_threshold_agrees_with_trying_all_label_maps() -> None:
    rng = np.random.default_rng(0)
    labels = [3, 7]
    examples = []
    for _ in range(4):
        label = rng.choice(np.array([0, 3, 7, 255], dtype=np.uint8), size=(8, 8))
        truth = np.stack([label == value for value in labels])
        examples.append((np.clip(truth * 0.3 + rng.random((2, 8, 8)) * 0.7, 0.001, 1), labels, label))

    def pooled_iou(threshold: float) -> float:
        hits = union = 0
        for maps, _, label in examples:
            predicted = label_map(maps, labels, threshold=threshold)
            for value in labels:
                a, b = (predicted == value) & (label != 255), label == value
                hits, union = hits + int((a & b).sum()), union + int((a | b).sum())
        return hits / union

    assert choose_label_threshold(examples) == max(np.linspace(0, 1, 101)[:-1], key=pooled_iou)


def test_threshold_without_a_labelled_pixel_is_refused() -> None:
    with pytest.raises(UserError, match=r"text2mask.num_calibration"):
        choose_label_threshold([(np.zeros((1, 2, 2)), [1], np.zeros((2, 2), dtype=np.uint8))])


def test_image_level_labels_are_those_that_occur() -> None:
    label = np.array([[0, 255], [12, 6]], dtype=np.uint8)
    assert image_level_labels(label, {6: "bus", 7: "car", 12: "dog"}) == ((6, 12), ("bus", "dog"))
    assert image_level_labels(np.zeros((2, 2), dtype=np.uint8), {6: "bus"}) == ((), ())
