"""Binary cross-entropy against the oracle's masks (paper section 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from diffground.errors import UserError

TRAINING_TYPES = ("without_zero_masks", "normal")


def judged_queries(*, exists: Tensor, found: Tensor, training_type: str) -> Tensor:
    """Which queries the loss reads, bool (B, Q).

    Args:
        exists: bool (B, Q), False for padding.
        found: bool (B, Q), whether the detector found the category.
        training_type: 'without_zero_masks' leaves out what was not found, for the detector may have missed it;
            'normal' takes it for absent: an empty mask.
    Raises: UserError for another training type.
    """
    if training_type not in TRAINING_TYPES:
        raise UserError(f"grounding.training_type must be one of {', '.join(TRAINING_TYPES)}, got '{training_type}'")
    return exists & found if training_type == "without_zero_masks" else exists


def grounding_loss(logits: Tensor, masks: Tensor, *, judged: Tensor) -> Tensor:
    """Mean binary cross-entropy over the pixels of judged queries; 0 when there is none.

    Args: logits float (B, Q, H, W); masks the same shape, 0 or 1; judged bool (B, Q).
    """
    per_query = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(dim=(2, 3))  # (B, Q)
    weights = judged.to(per_query.dtype)
    return (per_query * weights).sum() / weights.sum().clamp(min=1)
