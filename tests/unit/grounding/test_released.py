"""The released module computes what the authors' code does, at the size of Stable Diffusion 1.x and at small ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from diffground.diffusion.generator import Generator, Tap
from diffground.diffusion.unet_features import group_by_size, stack_branches, tap_features
from diffground.errors import UserError
from diffground.grounding.checkpoint import save_grounding
from diffground.grounding.import_released import RELEASED_SPEC
from diffground.grounding.module import GroundingModule
from diffground.grounding.prediction import Grounder
from diffground.grounding.train import train_module
from tests.unit.grounding.released_reference import LEVELS, published_shapes, random_state, reference_logits
from tests.unit.grounding.toy_world import SIZE, make_toy, toy_miou

CPU = torch.device("cpu")
ATOL = 1e-4
SMALL = replace(
    RELEASED_SPEC,
    feature_channels={2: 6, 4: 5, 8: 4, 16: 3},
    text_dim=5,
    reduced_channels=(2, 2, 3, 3),
    embed_dim=8,
    num_layers=2,
    num_heads=2,
    ffn_dim=12,
)


def published(name: str) -> str:
    """Our name of a tensor without the part of the module it is in."""
    return name.split(".", 1)[1]


def with_random_state(spec, *, seed: int) -> tuple[GroundingModule, dict[str, Tensor]]:  # type: ignore[no-untyped-def]
    module = spec.build()
    names = {published(name): name for name in module.state_dict()}
    state = random_state({name: tuple(module.state_dict()[ours].shape) for name, ours in names.items()}, seed=seed)
    module.load_state_dict({ours: state[name].clone() for name, ours in names.items()})
    return module, state


def random_inputs(channels: Mapping[int, int], *, batch: int, num_words: int, text_dim: int) -> tuple[dict, Tensor]:
    generator = torch.Generator().manual_seed(1)
    maps = {s: torch.randn(batch, c, s, s, generator=generator) + 0.3 for s, c in channels.items()}
    return maps, torch.randn(batch, num_words, text_dim, generator=generator)


def by_level(maps: Mapping[int, Tensor]) -> dict[str, Tensor]:
    return dict(zip(LEVELS, (maps[size] for size in sorted(maps)), strict=True))


def test_names_and_shapes_are_those_of_the_published_file() -> None:
    with torch.device("meta"):
        state = RELEASED_SPEC.build().state_dict()
    assert {published(name): tuple(tensor.shape) for name, tensor in state.items()} == published_shapes()
    assert len(state) == len(published_shapes()) == 90


def test_stable_diffusion_gives_the_features_that_it_reads() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            cross_attention_dim=768,
            attention_head_dim=8,
            down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
            up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        ).eval()
        with tap_features(unet) as maps, torch.no_grad():
            unet(torch.zeros(2, 4, 64, 64), torch.tensor(1), encoder_hidden_states=torch.zeros(2, 77, 768))
    grouped = group_by_size(stack_branches(maps))
    assert {size: values.shape[1] for size, values in grouped.items()} == RELEASED_SPEC.feature_channels


@pytest.mark.parametrize("train", [False, True])
@torch.no_grad()
def test_logits_and_buffers_at_the_true_size_are_those_of_the_published_computation(train: bool) -> None:
    module, state = with_random_state(RELEASED_SPEC, seed=0)
    module.train(train)
    maps, text = random_inputs(RELEASED_SPEC.feature_channels, batch=1, num_words=2, text_dim=768)
    logits = module(maps, text, None, image_size=512)
    expected, changed = reference_logits(state, by_level(maps), text, num_heads=8, image_size=512, train=train)
    assert logits.shape == (1, 2, 512, 512)
    assert expected.std() > 0.5  # 1e-4 is little beside it
    torch.testing.assert_close(logits, expected, atol=ATOL, rtol=0)
    assert len(changed) == (24 if train else 0)
    assert_buffers(module, {**state, **changed})


def test_training_goes_on_from_the_updated_buffers_and_its_gradients_are_those_of_the_published_computation() -> None:
    module, state = with_random_state(SMALL, seed=2)
    module.train()
    for step in range(3):
        maps, text = random_inputs(SMALL.feature_channels, batch=2, num_words=3, text_dim=5)
        maps = {size: values + step for size, values in maps.items()}
        state = {name: values.clone().requires_grad_() for name, values in state.items()}
        logits = module(maps, text, None, image_size=32)
        expected, changed = reference_logits(state, by_level(maps), text, num_heads=2, image_size=32, train=True)
        torch.testing.assert_close(logits, expected, atol=ATOL, rtol=0)
        module.zero_grad()
        logits.square().mean().backward()
        expected.square().mean().backward()
        weights = dict(module.named_parameters())
        assert len(weights) > 30
        for name, weight in weights.items():
            torch.testing.assert_close(weight.grad, state[published(name)].grad, atol=ATOL, rtol=1e-3)
        state = {name: values.detach() for name, values in {**state, **changed}.items()}
        assert_buffers(module, state)


@torch.no_grad()
def test_masks_depend_on_no_other_sample_and_on_no_padding() -> None:
    module, _ = with_random_state(SMALL, seed=3)
    module.eval()
    maps, text = random_inputs(SMALL.feature_channels, batch=3, num_words=2, text_dim=5)
    exists = torch.tensor([[True, True], [True, False], [True, True]])
    together = module(maps, text, None, image_size=32, exists=exists)
    for i, num_words in enumerate(exists.sum(dim=1).tolist()):
        of_sample = {size: values[[i]] for size, values in maps.items()}
        alone = module(of_sample, text[[i], :num_words], None, image_size=32)
        torch.testing.assert_close(together[i, :num_words], alone[0], atol=1e-5, rtol=1e-5)


def test_a_grounder_gives_the_published_computation_on_both_branches_unconditional_first(
    checkpoint: Path, tmp_path: Path
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint)
    torch.manual_seed(4)
    pipeline.unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    generator = Generator(pipeline, image_size=32, generator_id="tiny")
    spec = replace(
        SMALL,
        feature_channels=generator.feature_channels("both"),
        text_dim=generator.text_dim,
        reduced_channels=(4,) * 4,
    )
    module, _ = with_random_state(spec, seed=5)
    noise = generator.noise(range(8))
    features = generator.features(noise, ["a photograph of a bus"] * 8, timestep=1, tap=Tap("both")).maps
    for _ in range(50):  # stored statistics that fit these features
        module.train()(features, torch.randn(8, 1, generator.text_dim), None, image_size=32)
    state = {published(name): tensor.clone() for name, tensor in module.state_dict().items()}
    save_grounding(tmp_path / "grounding", module, spec, card="")
    grounder = Grounder.load(tmp_path / "grounding", generator=generator, device=CPU, allow_other_generator=True)
    prompt, words, latents = "a photograph of a dog and a potted plant", ["potted plant", "dog"], generator.noise([6])
    (probs,) = grounder.probs(latents=latents, prompts=[prompt], words=[words], timestep=1, image_size=32)

    with tap_features(pipeline.unet) as passed, torch.no_grad():
        states = generator.embed(["", prompt])
        pipeline.unet(torch.cat([latents, latents]), 1, encoder_hidden_states=states)
    stacked = [m.reshape(1, 2 * m.shape[1], *m.shape[2:]) for m in passed]
    maps = {
        level: torch.cat([m for m in stacked if m.shape[-1] == size], dim=1)
        for level, size in zip(LEVELS, (2, 4, 8, 16), strict=True)
    }
    text = torch.stack([generator.category_embedding(word) for word in words])[None]
    expected, _ = reference_logits(state, maps, text, num_heads=2, image_size=32, train=False)
    torch.testing.assert_close(probs, expected[0].sigmoid(), atol=ATOL, rtol=0)
    assert probs.std() > 0.05


def test_it_trains_like_any_grounding_module() -> None:
    torch.manual_seed(0)
    toy = make_toy(["dog", "cat", "bus"], num_samples=32, seed=0, text_tells=True)
    maps = {size: torch.nn.functional.avg_pool2d(toy.maps[SIZE], SIZE // size) for size in (1, 2, 4, 8)}
    toy = replace(toy, maps=maps)
    module = replace(
        SMALL,
        feature_channels={size: values.shape[1] for size, values in maps.items()},
        text_dim=8,
        reduced_channels=(4, 4, 8, 16),
        embed_dim=32,
        num_heads=4,
        ffn_dim=64,
        patch_size=1,
    ).build()
    train_module(
        module,
        toy.training_set(with_attention=False),
        training_type="normal",
        iterations=60,
        batch_size=8,
        learning_rate=2e-3,
        weight_decay=0.0,
        decay_frac=0.5,
        query_noise=0.0,
        text_drop=0.0,
        seed=0,
    )
    assert not module.training
    assert toy_miou(module, toy, num_words=1) > 0.7


def test_three_feature_sizes_are_refused() -> None:
    spec = replace(SMALL, feature_channels={4: 6, 8: 5, 16: 4})
    with pytest.raises(UserError, match=r"reads 4 feature sizes, got features of \[4, 8, 16\]"):
        spec.build()


def assert_buffers(module: GroundingModule, expected: Mapping[str, Tensor]) -> None:
    buffers = dict(module.named_buffers())
    assert len(buffers) == 24
    for name, values in buffers.items():
        torch.testing.assert_close(values, expected[published(name)], atol=1e-5, rtol=1e-5)
