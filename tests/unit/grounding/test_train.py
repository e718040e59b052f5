"""The module learns what can be learned: a toy world in which the right masks are known by construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffground.errors import UserError
from diffground.grounding.features import CachedFeatures
from diffground.grounding.train import TrainingSet, stack_ignored, stack_masks, train_module
from tests.unit.grounding.toy_world import NUM_MAPS, Toy, make_module, make_toy, toy_miou, toy_samples

SEEN = [f"seen{i}" for i in range(40)]
UNSEEN = [f"unseen{i}" for i in range(10)]


def train(toy: Toy, *, with_attention: bool, iterations: int = 250, seed: int = 0, **changes: object):  # type: ignore[no-untyped-def]
    torch.manual_seed(seed)
    module = make_module(num_attention_maps=NUM_MAPS if with_attention else 0)
    settings = {
        "training_type": "without_zero_masks",
        "iterations": iterations,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "weight_decay": 0.0,
        "decay_frac": 0.3,
        "query_noise": 0.1,
        "text_drop": 0.5 if with_attention else 0.0,
    } | changes
    curve = train_module(module, toy.training_set(with_attention=with_attention), seed=seed, **settings)
    return module, curve


def test_a_held_out_word_is_segmented_when_its_pixels_carry_its_vector() -> None:
    module, _ = train(make_toy(SEEN, num_samples=400, seed=1, text_tells=True), with_attention=False)
    held_out = make_toy(UNSEEN, num_samples=60, seed=2, text_tells=True)
    assert toy_miou(module, held_out, num_words=1) > 0.75
    assert toy_miou(module, held_out, num_words=2) > 0.6


def test_word_attention_carries_over_to_held_out_words_whose_text_tells_nothing() -> None:
    few = make_toy(SEEN[:8], num_samples=200, seed=1, text_tells=False)
    held_out = make_toy(UNSEEN, num_samples=60, seed=2, text_tells=False)
    paper, _ = train(few, with_attention=False)
    attentive, _ = train(few, with_attention=True)
    assert toy_miou(paper, few, num_words=2) > 0.8  # the words it was trained on it knows by heart
    assert toy_miou(paper, held_out, num_words=2) < 0.5
    assert toy_miou(attentive, held_out, num_words=2) > 0.75


def test_loss_falls_and_the_same_seed_gives_the_same_weights() -> None:
    toy = make_toy(SEEN[:8], num_samples=40, seed=1, text_tells=True)
    first, curve = train(toy, with_attention=True, iterations=60, batch_size=8)
    second, _ = train(toy, with_attention=True, iterations=60, batch_size=8)
    other, _ = train(toy, with_attention=True, iterations=60, batch_size=8, seed=1)
    assert curve.iterations == [50, 60]
    assert curve.losses[-1] < 0.7 * curve.losses[0]
    weights = first.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in second.state_dict().items())
    assert not all(torch.equal(weights[name], tensor) for name, tensor in other.state_dict().items())
    assert not first.training


def test_normal_training_learns_empty_masks_where_without_zero_masks_ignores_them() -> None:
    toy = make_toy(SEEN, num_samples=400, seed=1, text_tells=True)
    overlooked = set(SEEN[:10])  # a detector that never finds these
    # beside another word their pixels would be background to either training
    kept = [i for i, words in enumerate(toy.words) if len(words) == 1 or not overlooked & set(words)]
    poor = Toy(
        words=[toy.words[i] for i in kept],
        embeddings=toy.embeddings,
        attention=toy.attention[kept],
        maps={size: values[kept] for size, values in toy.maps.items()},
        masks=[{w: mask for w, mask in toy.masks[i].items() if w not in overlooked} for i in kept],
    )
    shown = make_toy(sorted(overlooked), num_samples=60, seed=2, text_tells=True)
    trusting, _ = train(poor, with_attention=False, training_type="normal", iterations=200)
    ignoring, _ = train(poor, with_attention=False, iterations=200)
    assert toy_miou(trusting, shown, num_words=1) < 0.3
    assert toy_miou(ignoring, shown, num_words=1) > 0.6


def test_training_without_samples_says_what_is_missing() -> None:
    features = CachedFeatures(maps={}, attention=None, device=torch.device("cpu"))
    empty = TrainingSet(samples=[], words=[], embeddings={}, features=features, image_size=16)
    with pytest.raises(UserError, match="no training sample has a mask"):
        train_module(
            make_module(num_attention_maps=0),
            empty,
            training_type="normal",
            iterations=1,
            batch_size=1,
            learning_rate=1e-3,
            weight_decay=0.0,
            decay_frac=0.0,
            query_noise=0.0,
            text_drop=0.0,
            seed=0,
        )


def test_masks_are_stacked_in_the_order_of_the_words_with_zeros_for_what_was_not_found() -> None:
    dog = torch.eye(2, dtype=torch.bool).numpy()
    masks, found = stack_masks([{"dog": dog}, {}], [("cat", "dog"), ("dog",)], 2, 2)
    assert masks.tolist() == [[[[0, 0], [0, 0]], [[1, 0], [0, 1]]], [[[0, 0], [0, 0]], [[0, 0], [0, 0]]]]
    assert found.tolist() == [[False, True], [False, False]]


def test_ignored_pixels_are_stacked_and_none_where_all_are_labelled() -> None:
    border = torch.eye(2, dtype=torch.bool).numpy()
    stacked = stack_ignored([None, border], 2)
    assert stacked is not None
    assert stacked.tolist() == [[[False, False], [False, False]], [[True, False], [False, True]]]
    assert stack_ignored([None, None], 2) is None


def test_what_stands_in_ignored_pixels_is_not_learned() -> None:
    toy = make_toy(SEEN[:8], num_samples=40, seed=1, text_tells=True)
    border = np.zeros((16, 16), dtype=bool)
    border[3:9] = True
    wrong = [{word: mask ^ border for word, mask in masks.items()} for masks in toy.masks]

    def trained(masks: list, ignored: np.ndarray | None) -> dict:
        torch.manual_seed(0)
        module = make_module(num_attention_maps=0)
        data = replace(toy.training_set(with_attention=False), samples=toy_samples(toy.words, masks, ignored))
        train_module(
            module,
            data,
            training_type="normal",
            iterations=5,
            batch_size=8,
            learning_rate=1e-3,
            weight_decay=0.0,
            decay_frac=0.0,
            query_noise=0.0,
            text_drop=0.0,
            seed=0,
        )
        return module.state_dict()

    right, misled, unmoved = trained(toy.masks, border), trained(wrong, None), trained(wrong, border)
    assert all(torch.equal(right[name], tensor) for name, tensor in unmoved.items())
    assert not all(torch.equal(right[name], tensor) for name, tensor in misled.items())
