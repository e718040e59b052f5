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
