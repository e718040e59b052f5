"""Text queries attend to visual tokens: the transformer decoder (paper section 3.3, "fusion module")."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention without biases, as in the released checkpoint."""

    def __init__(self, *, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, *, attend: Tensor | None = None) -> Tensor:
        """float (B, Q, E), (B, N, E), (B, N, E) -> (B, Q, E). `attend` bool (B, N): which keys exist."""
        batch, num_queries, dim = queries.shape

        def split(x: Tensor) -> Tensor:
            return x.view(batch, -1, self.num_heads, dim // self.num_heads).transpose(1, 2)  # (B, heads, N, E/heads)

        mixed = F.scaled_dot_product_attention(
            split(self.to_q(queries)),
            split(self.to_k(keys)),
            split(self.to_v(values)),
            attn_mask=None if attend is None else attend[:, None, None, :],  # (B, 1, 1, N)
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, num_queries, dim))


class DecoderLayer(nn.Module):
    """Pre-norm: self-attention over the queries, cross-attention to the tokens, feed-forward with ReLU; no dropout."""

    def __init__(self, *, dim: int, num_heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim, bias=False) for _ in range(3))
        self.self_attention = Attention(dim=dim, num_heads=num_heads)
        self.cross_attention = Attention(dim=dim, num_heads=num_heads)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.ReLU(), nn.Linear(ffn_dim, dim))

    def forward(self, queries: Tensor, tokens: Tensor, *, exists: Tensor) -> Tensor:
        """float (B, Q, E), (B, N, E); `exists` bool (B, Q) marks queries that are not padding. Returns (B, Q, E)."""
        normed = self.norm1(queries)
        queries = queries + self.self_attention(normed, normed, normed, attend=exists)
        queries = queries + self.cross_attention(self.norm2(queries), tokens, tokens)
        return queries + self.ffn(self.norm3(queries))


class Fusion(nn.Module):
    """Text queries (B, Q, text_dim), visual tokens (B, N, token_dim) -> a mask embedding per query (B, Q, mask_dim)."""

    def __init__(
        self,
        *,
        text_dim: int,
        token_dim: int,
        mask_dim: int,
        embed_dim: int,
        num_layers: int,
        num_heads: int,
        ffn_dim: int,
    ) -> None:
        super().__init__()
        self.to_q = nn.Linear(text_dim, embed_dim, bias=False)
        self.to_k = nn.Linear(token_dim, embed_dim, bias=False)
        self.layers = nn.ModuleList(
            DecoderLayer(dim=embed_dim, num_heads=num_heads, ffn_dim=ffn_dim) for _ in range(num_layers)
        )
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, embed_dim),
            nn.ReLU(),
            nn.Linear(embed_dim, embed_dim),
            nn.ReLU(),
            nn.Linear(embed_dim, mask_dim),
        )

    def forward(self, text: Tensor, tokens: Tensor, *, exists: Tensor, prototype: Tensor | None = None) -> Tensor:
        """`exists` bool (B, Q); `prototype` float (B, Q, embed_dim) is added to the projected text."""
        queries = self.to_q(text)  # (B, Q, E)
        if prototype is not None:
            queries = queries + prototype
        keys = self.to_k(tokens)  # (B, N, E)
        for layer in self.layers:
            queries = layer(queries, keys, exists=exists)
        mask_embedding: Tensor = self.mlp(queries)  # (B, Q, mask_dim)
        return mask_embedding


def to_patches(x: Tensor, patch_size: int) -> Tensor:
    """Non-overlapping patches, channel-major: float (B, D, s, s) -> (B, (s / p)^2, D p^2).

    Raises: ValueError when p does not divide s.
    """
    if x.shape[-1] % patch_size:
        raise ValueError(f"patch_size must divide the map's size {x.shape[-1]}, got {patch_size}")
    return F.unfold(x, patch_size, stride=patch_size).transpose(1, 2)
