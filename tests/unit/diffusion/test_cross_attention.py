"""Recorded attention: it is a distribution, it is the one that the UNet uses, and the UNet goes on as before."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from diffground.diffusion.cross_attention import WordMaps, cross_attention_layers, observe_cross_attention
from diffground.diffusion.generator import Generator

PROMPTS = ["a photograph of a dog and a bus", "a photograph of a potted plant"]


def observe(generator: Generator) -> tuple[dict[int, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Probabilities a layer; noise prediction with and without the observer."""
    probs: dict[int, torch.Tensor] = {}
    arguments = {"timestep": 10, "encoder_hidden_states": generator.embed(PROMPTS)}
    with torch.no_grad():
        plain = generator._unet(generator.noise([0, 1]), **arguments).sample
        with observe_cross_attention(generator._unet, probs.__setitem__):
            observed = generator._unet(generator.noise([0, 1]), **arguments).sample
    return probs, plain, observed


def test_probabilities_sum_to_one_over_the_tokens(generator: Generator) -> None:
    probs, _, _ = observe(generator)
    assert len(probs) == 7  # two down blocks with one layer each, the mid block, two up blocks with two layers each
    for p in probs.values():
        assert p.shape[:2] == (2, 2)
        assert p.shape[3] == 24
        torch.testing.assert_close(p.sum(dim=-1), torch.ones(p.shape[:3]), atol=1e-5, rtol=0)


def test_noise_prediction_is_the_same_with_the_observer(generator: Generator) -> None:
    _, plain, observed = observe(generator)
    torch.testing.assert_close(observed, plain, atol=1e-5, rtol=1e-5)


def test_probabilities_are_those_of_a_hand_written_attention(generator: Generator) -> None:
    layer = cross_attention_layers(generator._unet)[0]
    inputs: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    probs, _, _ = observe(generator)
    handle.remove()
    text = generator.embed(PROMPTS)
    query = F.linear(inputs[0], layer.to_q.weight)[0].view(-1, 2, 4)  # 2 heads of 4
    key = F.linear(text, layer.to_k.weight)[0].view(-1, 2, 4)
    for head in range(2):
        expected = torch.softmax(query[:, head] @ key[:, head].T / 4**0.5, dim=-1)
        torch.testing.assert_close(probs[0][0, head], expected, atol=1e-5, rtol=1e-4)


def test_processors_are_put_back(generator: Generator) -> None:
    before = dict(generator._unet.attn_processors)
    observe(generator)
    after = generator._unet.attn_processors
    assert len(before) == 14
    assert all(after[name] is processor for name, processor in before.items())


def test_layers_are_counted_in_the_order_in_which_they_run(generator: Generator) -> None:
    order: list[int] = []
    with torch.no_grad(), observe_cross_attention(generator._unet, lambda layer, probs: order.append(layer)):
        generator._unet(generator.noise([0]), 10, encoder_hidden_states=generator.embed([""]))
    assert order == list(range(7))


def test_word_maps_average_heads_tokens_and_passes_of_the_conditional_half() -> None:
    # One sample with guidance, 2 heads, 4 pixels, 3 tokens; the word is tokens 0 and 2.
    weights = torch.tensor([0.5, 0.0, 0.5]).view(1, 3, 1)
    probs = torch.zeros(2, 2, 4, 3)
    probs[0] = 100.0  # the unconditional half does not count
    probs[1, 0, 0] = torch.tensor([0.4, 0.5, 0.1])
    probs[1, 1, 0] = torch.tensor([0.2, 0.1, 0.7])
    words = WordMaps(weights)
    words(0, probs)
    words(0, torch.zeros(2, 2, 4, 3))
    maps = words.resized(2, mode="bilinear")
    # heads: mean of (0.4 + 0.1) / 2 and (0.2 + 0.7) / 2 = 0.35; two passes: 0.175
    assert maps.shape == (1, 1, 1, 2, 2)
    torch.testing.assert_close(maps[0, 0, 0], torch.tensor([[0.175, 0.0], [0.0, 0.0]]))
