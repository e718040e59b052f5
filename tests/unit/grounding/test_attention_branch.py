"""Maps made comparable between words, and a word's lead over the others of its prompt."""

from __future__ import annotations

import torch

from diffground.grounding.attention_branch import AttentionBranch, lead_over_others, standardise


def test_standardised_maps_have_mean_zero_and_spread_one_whatever_their_scale() -> None:
    maps = torch.tensor([[0.0, 2.0], [0.0, 2.0]])
    expected = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]])
    torch.testing.assert_close(standardise(maps), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(standardise(0.01 * maps + 5), expected, atol=1e-3, rtol=0)


def test_a_constant_map_says_nothing() -> None:
    assert not standardise(torch.full((1, 4, 4), 0.25)).any()


def test_lead_is_over_the_strongest_other_word_that_exists() -> None:
    values = torch.tensor([5.0, 3.0, 4.0, 100.0])  # the last only pads
    maps = values[None, :, None, None, None].expand(1, 4, 2, 1, 1)
    exists = torch.tensor([[True, True, True, False]])
    lead = lead_over_others(maps, exists=exists)
    assert lead[0, :3, :, 0, 0].tolist() == [[1.0, 1.0], [-2.0, -2.0], [-1.0, -1.0]]


def test_a_word_alone_leads_nobody() -> None:
    maps = torch.rand(1, 2, 3, 4, 4)
    lead = lead_over_others(maps, exists=torch.tensor([[True, False]]))
    assert not lead[0, 0].any()


def test_a_word_that_the_prompt_does_not_hold_gives_finite_evidence() -> None:
    evidence = AttentionBranch(num_maps=2, visual_dim=6, embed_dim=8)
    logits, prototype = evidence(
        torch.zeros(1, 1, 2, 4, 4), torch.randn(1, 6, 8, 8), exists=torch.ones(1, 1, dtype=torch.bool)
    )
    assert logits.shape == (1, 1, 8, 8)
    assert prototype.shape == (1, 1, 8)
    assert logits.isfinite().all()
    assert prototype.isfinite().all()
