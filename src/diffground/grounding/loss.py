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
        training_type: 'without_zero_masks' leaves out what was not found, because the detector may have missed it;
            'normal' treats it as absent: an empty mask.
    Raises: UserError for another training type.
    """
    if training_type not in TRAINING_TYPES:
        raise UserError(f"grounding.training_type must be one of {', '.join(TRAINING_TYPES)}, got '{training_type}'")
    return exists & found if training_type == "without_zero_masks" else exists


def grounding_loss(logits: Tensor, masks: Tensor, *, judged: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Mean over judged queries of the mean binary cross-entropy of their pixels; 0 if there are none.

    Args: logits float (B, Q, H, W); masks the same shape, 0 or 1; judged bool (B, Q); ignored bool (B, H, W), pixels
        that count in no query of their sample, None: all count.
    """
    per_pixel = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")  # (B, Q, H, W)
    if ignored is None:
        per_query = per_pixel.mean(dim=(2, 3))  # (B, Q)
    else:
        kept = (~ignored)[:, None].to(per_pixel.dtype)  # (B, 1, H, W)
        per_query = (per_pixel * kept).sum(dim=(2, 3)) / kept.sum(dim=(2, 3)).clamp(min=1)
    weights = judged.to(per_query.dtype)
    return (per_query * weights).sum() / weights.sum().clamp(min=1)
