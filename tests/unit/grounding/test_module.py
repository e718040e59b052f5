"""A sample's masks depend on nothing but the sample, and the published structure is kept."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diffground.errors import UserError
from diffground.grounding.module import GroundingModule
from diffground.grounding.visual_encoder import MixConv, VisualEncoder
from tests.unit.grounding.toy_world import DIM, NUM_MAPS, SIZE, make_module, make_toy, toy_logits

TOY = make_toy(["dog", "cat", "bus"], num_samples=6, seed=0, text_tells=True)


def warmed_up(module: GroundingModule) -> GroundingModule:
    """Batch norm has seen data; evaluation mode."""
    module.train()
    toy_logits(module, TOY, [0, 1, 2, 3])
    return module.eval()


@pytest.mark.parametrize("num_maps", [0, NUM_MAPS])
@pytest.mark.parametrize("tokens_at", ["features", "image"])
def test_masks_of_a_batch_equal_those_one_by_one(num_maps: int, tokens_at: str) -> None:
    torch.manual_seed(0)
    module = warmed_up(make_module(num_attention_maps=num_maps, tokens_at=tokens_at, patch_size=2))
    together = toy_logits(module, TOY, [0, 1, 2, 3, 4, 5])  # one word, two words, one word …
    assert together.shape == (6, 2, 2 * SIZE, 2 * SIZE)
    for i in range(6):
        num_words = len(TOY.words[i])
        torch.testing.assert_close(together[i, :num_words], toy_logits(module, TOY, [i])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_maps", [0, NUM_MAPS])
def test_padding_changes_neither_masks_nor_gradients_in_training(num_maps: int) -> None:
    torch.manual_seed(0)
    module = make_module(num_attention_maps=num_maps).train()
    maps = {size: values[[0, 2]] for size, values in TOY.maps.items()}  # two samples of one word
    text = torch.randn(2, 1, DIM)
    attention = TOY.attention[[0, 2]]
    gradients = []
    logits = []
    for num_queries in (1, 3):
        missing = num_queries - 1
        padded = F.pad(text, (0, 0, 0, missing), value=7.0)
        exists = torch.tensor([[True] + [False] * missing] * 2)
        words = torch.cat([attention[:, :1], torch.full((2, missing, *attention.shape[2:]), 0.3)], dim=1)
        module.zero_grad()
        logits.append(module(maps, padded, words, image_size=16, exists=exists)[:, :1])
        logits[-1].sum().backward()
        gradients.append([weight.grad.clone() for weight in module.parameters() if weight.grad is not None])
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-5)
    assert len(gradients[0]) == len(gradients[1]) > 10
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("num_maps", [0, NUM_MAPS])
def test_order_of_the_words_does_not_matter(num_maps: int) -> None:
    torch.manual_seed(0)
    module = warmed_up(make_module(num_attention_maps=num_maps))
    maps = {size: values[[1]] for size, values in TOY.maps.items()}
    text, attention = torch.randn(1, 2, DIM), TOY.attention[[1]]
    forth = module(maps, text, attention, image_size=16)
    back = module(maps, text.flip(1), attention.flip(1), image_size=16)
    torch.testing.assert_close(forth, back.flip(1), atol=1e-5, rtol=1e-5)


def test_without_word_attention_the_maps_are_not_read_and_the_published_parts_are_all_there_is() -> None:
    module = warmed_up(make_module(num_attention_maps=0))
    assert {name for name, _ in module.named_children()} == {"visual_encoder", "fusion"}
    maps = {size: values[[0]] for size, values in TOY.maps.items()}
    text = torch.randn(1, 1, DIM)
    with_maps = module(maps, text, TOY.attention[[0]][:, :1], image_size=16)
    assert torch.equal(with_maps, module(maps, text, None, image_size=16))


def test_word_attention_needs_attention_maps() -> None:
    module = make_module(num_attention_maps=NUM_MAPS)
    maps = {size: values[[0]] for size, values in TOY.maps.items()}
    with pytest.raises(ValueError, match="cross-attention maps"):
        module(maps, torch.randn(1, 1, DIM), None, image_size=16)


def test_a_query_without_its_text_goes_by_word_evidence_alone() -> None:
    torch.manual_seed(0)
    module = warmed_up(make_module(num_attention_maps=NUM_MAPS))
    maps = {size: values[[1]] for size, values in TOY.maps.items()}
    kept = torch.tensor([[True, False]])
    one, other = (
        module(maps, torch.randn(1, 2, DIM), TOY.attention[[1]], image_size=16, text_kept=kept) for _ in range(2)
    )
    assert torch.equal(one[:, 1], other[:, 1])
    assert not torch.equal(one[:, 0], other[:, 0])


def test_logits_are_the_dot_product_with_the_upsampled_fused_map() -> None:
    """The paper upsamples the map first; the order does not matter, for upsampling is linear."""
    torch.manual_seed(0)
    module = warmed_up(make_module(num_attention_maps=0))
    maps = {size: values[[0, 1]] for size, values in TOY.maps.items()}
    text = torch.randn(2, 2, DIM)
    with torch.no_grad():
        fused = module.visual_encoder(maps)  # (2, 24, 8, 8)
        embedding = module.fusion(text, fused.flatten(2).transpose(1, 2), exists=torch.ones(2, 2, dtype=torch.bool))
        large = F.interpolate(fused, size=(16, 16), mode="bilinear", align_corners=False)
        expected = torch.einsum("bqd,bdyx->bqyx", embedding, large)
    torch.testing.assert_close(module(maps, text, None, image_size=16), expected, atol=1e-5, rtol=1e-5)


def test_the_released_settings_give_the_released_shapes() -> None:
    """Shapes of the published checkpoint: SD 1.x at 512 px, both branches."""
    channels = {8: 15360, 16: 14080, 32: 8320, 64: 5120}
    with torch.device("meta"):
        module = GroundingModule(
            feature_channels=channels,
            text_dim=768,
            num_attention_maps=0,
            reduced_channels=(16, 32, 64, 128),
            embed_dim=512,
            num_layers=3,
            num_heads=8,
            ffn_dim=2048,
            patch_size=4,
            tokens_at="features",
        )
    encoder, fusion = module.visual_encoder, module.fusion
    assert [tuple(r.weight.shape) for r in encoder.reductions] == [
        (16, 15360, 1, 1),
        (32, 14080, 1, 1),
        (64, 8320, 1, 1),
        (128, 5120, 1, 1),
    ]
    assert [tuple(m.conv1.weight.shape) for m in encoder.mixers] == [(48, 48, 3, 3), (112, 112, 3, 3), (240, 240, 3, 3)]
    assert tuple(fusion.to_k.weight.shape) == (512, 3840)
    assert tuple(fusion.to_q.weight.shape) == (512, 768)
    assert tuple(fusion.mlp[-1].weight.shape) == (240, 512)
    assert len(fusion.layers) == 3


def test_mix_conv_adds_the_activated_input() -> None:
    """With both convolutions at zero what is left is ReLU(BN(x)); here BN has seen mean 0 and variance 1."""
    mix = MixConv(channels=1).eval()
    for conv in (mix.conv1, mix.conv2):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    x = torch.tensor([[[[-2.0, 3.0]]]])
    torch.testing.assert_close(mix(x), torch.tensor([[[[0.0, 3.0]]]]) / (1 + 1e-4) ** 0.5)


def test_one_feature_size_needs_no_mixing() -> None:
    encoder = VisualEncoder(feature_channels={4: 3}, reduced_channels=(5,))
    assert encoder({4: torch.randn(2, 3, 4, 4)}).shape == (2, 5, 4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed_dim": 30}, "embed_dim must be a multiple of num_heads 4, got 30"),
        ({"tokens_at": "pixels"}, "tokens_at must be 'features' or 'image', got 'pixels'"),
        ({"patch_size": 3}, "patch_size must divide the finest feature size 8, got 3"),
        ({"reduced_channels": (8,)}, r"one width for each feature size of this generator \[4, 8\], got \[8\]"),
    ],
)
def test_sizes_that_do_not_fit_are_named(change: dict, message: str) -> None:
    settings = {
        "feature_channels": {4: 8, 8: 8},
        "text_dim": 8,
        "num_attention_maps": 0,
        "reduced_channels": (8, 8),
        "embed_dim": 32,
        "num_layers": 1,
        "num_heads": 4,
        "ffn_dim": 8,
        "patch_size": 1,
        "tokens_at": "features",
    } | change
    with pytest.raises(UserError, match=message):
        GroundingModule(**settings)
