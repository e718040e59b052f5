"""Loss against values worked by hand; undetected categories and padding."""

from __future__ import annotations

import math

import pytest
import torch

from diffground.errors import UserError
from diffground.grounding.loss import grounding_loss, judged_queries

EXISTS = torch.tensor([[True, True, False]])
FOUND = torch.tensor([[True, False, False]])


def test_without_zero_masks_leaves_out_what_the_detector_did_not_find() -> None:
    judged = judged_queries(exists=EXISTS, found=FOUND, training_type="without_zero_masks")
    assert judged.tolist() == [[True, False, False]]


def test_normal_judges_every_word_but_not_padding() -> None:
    judged = judged_queries(exists=EXISTS, found=FOUND, training_type="normal")
    assert judged.tolist() == [[True, True, False]]


def test_an_unknown_training_type_is_named() -> None:
    with pytest.raises(UserError, match="one of without_zero_masks, normal, got 'zero'"):
        judged_queries(exists=EXISTS, found=FOUND, training_type="zero")


def test_loss_worked_by_hand() -> None:
    """Query 0: logit 0 everywhere: ln 2 a pixel. Query 1: logit ln 3, so p = 3/4; mask 1, 1, 0, 0:
    (2 ln(4/3) + 2 ln 4) / 4 = ln(16/3) / 2."""
    logits = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]], [[math.log(3)] * 2] * 2]])
    masks = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]]])
    both = grounding_loss(logits, masks, judged=torch.tensor([[True, True]]))
    assert float(both) == pytest.approx((math.log(2) + math.log(16 / 3) / 2) / 2)
    second = grounding_loss(logits, masks, judged=torch.tensor([[False, True]]))
    assert float(second) == pytest.approx(math.log(16 / 3) / 2)


def test_what_is_not_judged_gets_no_gradient() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    judged = judged_queries(exists=EXISTS, found=FOUND, training_type="without_zero_masks")
    grounding_loss(logits, torch.zeros(1, 3, 2, 2), judged=judged).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].abs().min() > 0
    assert not logits.grad[0, 1:].any()


def test_a_batch_without_a_judged_query_has_loss_zero() -> None:
    logits = torch.randn(2, 1, 2, 2, requires_grad=True)
    loss = grounding_loss(logits, torch.ones(2, 1, 2, 2), judged=torch.zeros(2, 1, dtype=torch.bool))
    loss.backward()
    assert float(loss) == 0


def test_ignored_pixels_count_in_no_query_of_their_sample() -> None:
    """Sample 0 ignores its right column: query 0, mask 1 on the left: ln 2 and ln(4/3). Sample 1 counts whole: ln 2."""
    logits = torch.tensor([[[[0.0, 9.0], [math.log(3), -9.0]]], [[[0.0, 0.0], [0.0, 0.0]]]], requires_grad=True)
    masks = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]], [[[0.0, 1.0], [0.0, 1.0]]]])
    ignored = torch.tensor([[[False, True], [False, True]], [[False, False], [False, False]]])
    judged = torch.ones(2, 1, dtype=torch.bool)
    loss = grounding_loss(logits, masks, judged=judged, ignored=ignored)
    assert float(loss) == pytest.approx(((math.log(2) + math.log(4 / 3)) / 2 + math.log(2)) / 2)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad != 0)[0, 0].tolist() == [[True, False], [True, False]]
    nothing = torch.zeros_like(ignored)
    everywhere = grounding_loss(logits, masks, judged=judged)
    torch.testing.assert_close(grounding_loss(logits, masks, judged=judged, ignored=nothing), everywhere)


def test_a_sample_without_a_labelled_pixel_adds_nothing() -> None:
    logits, masks = torch.randn(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    ignored = torch.ones(1, 2, 2, dtype=torch.bool)
    assert float(grounding_loss(logits, masks, judged=torch.ones(1, 1, dtype=torch.bool), ignored=ignored)) == 0
