"""Where the generator itself places a word: cross-attention and denoising gain as evidence for a mask.

Not in the paper (grounding.word_attention). Every weight is shared by all words, so what is learned on the seen ones
applies to the others: which maps to trust, how to align them with the edges of the image, and how to separate two
words of one prompt.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentionBranch(nn.Module):
    """Maps of each queried word, and the fused map -> an additive logit map and a visual prototype per word."""

    def __init__(self, *, num_maps: int, visual_dim: int, embed_dim: int, hidden_dim: int = 64) -> None:
        super().__init__()
        self.visual = nn.Conv2d(visual_dim, hidden_dim, 1)
        self.maps = nn.Conv2d(2 * num_maps, hidden_dim, 3, padding=1)
        # Dilated, so that a pixel sees the whole object: single pixels separate words poorly.
        self.mix = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(hidden_dim, hidden_dim, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(hidden_dim, hidden_dim, 3, padding=4, dilation=4),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(hidden_dim, 2, 3, padding=1)
        self.prototype = nn.Linear(visual_dim, embed_dim, bias=False)

    def forward(self, attention: Tensor, fused: Tensor, *, exists: Tensor) -> tuple[Tensor, Tensor]:
        """Args:
            attention: float (B, Q, L, s, s), values of any scale.
            fused: float (B, D, S, S).
            exists: bool (B, Q), False for padding.
        Returns: evidence float (B, Q, S, S), logits; prototypes float (B, Q, embed_dim).
        """
        batch, num_queries, num_maps = attention.shape[:3]
        size = fused.shape[-1]
        maps = F.interpolate(attention.flatten(0, 1), size=(size, size), mode="bilinear", align_corners=False)
        maps = maps.view(batch, num_queries, num_maps, size, size)
        lead = standardise(lead_over_others(maps, exists=exists))
        cues = torch.cat([standardise(maps), lead], dim=2)  # (B, Q, 2L, S, S)
        hidden = self.maps(cues.flatten(0, 1)) + self.visual(fused).repeat_interleave(num_queries, dim=0)
        evidence, focus = self.head(self.mix(hidden)).view(batch, num_queries, 2, size, size).unbind(dim=2)
        weights = focus.flatten(2).softmax(dim=-1)  # (B, Q, S*S)
        pooled = torch.einsum("bqx,bdx->bqd", weights, fused.flatten(2))
        return evidence, self.prototype(pooled)


def standardise(maps: Tensor) -> Tensor:
    """Zero mean and unit spread over the pixels of each map, float (..., s, s); a constant map becomes zero.

    The overall size of the values differs between words and layers; only where they are large matters.
    """
    centred = maps - maps.mean(dim=(-2, -1), keepdim=True)
    spread = centred.square().mean(dim=(-2, -1), keepdim=True).sqrt()
    return centred / (spread + 1e-6)


def lead_over_others(maps: Tensor, *, exists: Tensor) -> Tensor:
    """Each word's maps minus, pixel by pixel, the highest among the sample's other words; zero for an only word.

    Args: maps float (B, Q, L, s, s); exists bool (B, Q).
    """
    num_queries = maps.shape[1]
    rival = exists[:, None, :] & ~torch.eye(num_queries, dtype=torch.bool, device=maps.device)  # (B, Q, Q)
    others = maps[:, None].masked_fill(~rival[..., None, None, None], -torch.inf)  # (B, Q, Q, L, s, s)
    has_rival = rival.any(dim=2)[..., None, None, None]
    return torch.where(has_rival, maps - others.amax(dim=2), torch.zeros_like(maps))
