"""The computation of the published checkpoint: visual encoder and fusion as the paper's authors released them.

Parameters and buffers carry the names of the published file, misprint included, so that its weights load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffground.errors import UserError

_EPS = 1e-4
"""Of batch norm and of spectral normalisation."""
_MOMENTUM = 0.1
_NUM_SIZES = 4


class SpectralConv2d(nn.Conv2d):
    """A 3x3 convolution whose weight is divided by an estimate of its largest singular value.

    The estimate is one step of power iteration from `u0`, float (1, out). In training mode the step is kept in `u0`
    and the estimate in `sv0`, float (1); in evaluation mode neither changes.
    """

    u0: Tensor
    sv0: Tensor

    def __init__(self, *, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)
        self.register_buffer("u0", torch.randn(1, channels))
        self.register_buffer("sv0", torch.ones(1))

    def forward(self, input: Tensor) -> Tensor:
        """float (B, C, s, s) -> the same shape."""
        return F.conv2d(input, self.weight / self._singular_value(), self.bias, padding=1)

    def _singular_value(self) -> Tensor:
        """float (). Its gradient reaches the weight directly, not through the singular vectors."""
        matrix = self.weight.flatten(1)  # (out, in * 9)
        with torch.no_grad():
            v = F.normalize(self.u0 @ matrix, eps=_EPS)  # (1, in * 9)
            u = F.normalize(v @ matrix.T, eps=_EPS)  # (1, out)
        value = (v @ matrix.T @ u.T).squeeze()
        if self.training:
            self.u0.copy_(u)
            self.sv0.copy_(value.detach())
        return value


class SpectralMixConv(nn.Module):
    """MixConv with spectral normalisation: a = ReLU(BN(x)); a + conv(ReLU(BN(conv(a)))).

    The residual is `a`, because the released ReLU works in place. Batch norm has no affine part.
    """

    stored_mean1: Tensor
    stored_var1: Tensor
    stored_mean2: Tensor
    stored_var2: Tensor

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.conv1 = SpectralConv2d(channels=channels)
        self.conv2 = SpectralConv2d(channels=channels)
        for i in (1, 2):
            self.register_buffer(f"stored_mean{i}", torch.zeros(channels))
            self.register_buffer(f"stored_var{i}", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """float (B, C, s, s) -> the same shape."""
        activated = F.relu(self._normalise(x, self.stored_mean1, self.stored_var1))
        hidden = F.relu(self._normalise(self.conv1(activated), self.stored_mean2, self.stored_var2))
        return activated + self.conv2(hidden)

    def _normalise(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return F.batch_norm(x, mean, var, training=self.training, momentum=_MOMENTUM, eps=_EPS)


class ReleasedVisualEncoder(nn.Module):
    """Like VisualEncoder, but every size except the finest is first brought to the next finer one.

    The parts are therefore mixed at 32, 64 and 64 px, not at 16, 32 and 64.

    feature_channels: size (px) -> channels of that size's maps, concatenated; four sizes.
    reduced_channels: channels after the reduction, coarse to fine (released: 16, 32, 64, 128).

    Raises: UserError when there are not four of each.
    """

    def __init__(self, *, feature_channels: Mapping[int, int], reduced_channels: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sorted(feature_channels))
        if not len(self.sizes) == len(reduced_channels) == _NUM_SIZES:
            raise UserError(
                f"the released grounding module reads {_NUM_SIZES} feature sizes, got features of {list(self.sizes)} "
                f"and reduced_channels {list(reduced_channels)}; use a generator of the Stable Diffusion 1.x family"
            )
        self.out_channels = sum(reduced_channels)
        self.low_feature_conv, self.mid_feature_conv, self.high_feature_conv, self.highest_feature_conv = (
            nn.Sequential(nn.Conv2d(feature_channels[size], reduced, 1, bias=False))
            for size, reduced in zip(self.sizes, reduced_channels, strict=True)
        )
        self.mid_feature_mix_conv, self.high_feature_mix_conv, self.highest_feature_mix_conv = (
            SpectralMixConv(channels=sum(reduced_channels[: i + 1])) for i in range(1, _NUM_SIZES)
        )

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """`maps`: size s -> float (B, C_s, s, s). Returns float (B, D, S, S) at the finest size S."""
        coarsest, mid, high, finest = self.sizes
        # A 1x1 convolution without bias and bilinear upsampling commute: reducing first is the same, and cheaper.
        low = _upsample(self.low_feature_conv(maps[coarsest]), mid)
        fused = torch.cat([_upsample(low, high), _upsample(self.mid_feature_conv(maps[mid]), high)], dim=1)
        fused = self.mid_feature_mix_conv(fused)  # (B, 48, 32, 32) with Stable Diffusion 1.x at 512 px
        fused = torch.cat([_upsample(fused, finest), _upsample(self.high_feature_conv(maps[high]), finest)], dim=1)
        fused = self.high_feature_mix_conv(fused)  # (B, 112, 64, 64)
        fused = torch.cat([fused, self.highest_feature_conv(maps[finest])], dim=1)
        return self.highest_feature_mix_conv(fused)  # (B, 240, 64, 64)


class ReleasedFusion(nn.Module):
    """Like Fusion, with the published parameters. The released code mixes the samples of a batch; this class does not.

    Text queries (B, Q, text_dim), visual tokens (B, N, token_dim) -> a mask embedding per query (B, Q, mask_dim).
    """

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
        layer = nn.TransformerDecoderLayer(
            embed_dim, num_heads, ffn_dim, dropout=0.0, activation="relu", batch_first=True, norm_first=True
        )
        layer.self_attn = nn.MultiheadAttention(embed_dim, num_heads, bias=False, batch_first=True)
        layer.multihead_attn = nn.MultiheadAttention(embed_dim, num_heads, bias=False, batch_first=True)
        self.transfromer_decoder = nn.TransformerDecoder(layer, num_layers)
        self.mlp = _Mlp(in_dim=embed_dim, hidden_dim=embed_dim, out_dim=mask_dim)

    def forward(self, text: Tensor, tokens: Tensor, *, exists: Tensor, prototype: Tensor | None = None) -> Tensor:
        """`exists` bool (B, Q); `prototype` float (B, Q, embed_dim) is added to the projected text."""
        queries = self.to_q(text)  # (B, Q, E)
        if prototype is not None:
            queries = queries + prototype
        queries = self.transfromer_decoder(queries, self.to_k(tokens), tgt_key_padding_mask=~exists)
        mask_embedding: Tensor = self.mlp(queries)  # (B, Q, mask_dim)
        return mask_embedding


class _Mlp(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, *, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        widths = [(in_dim, hidden_dim), (hidden_dim, hidden_dim), (hidden_dim, out_dim)]
        self.layers = nn.ModuleList(nn.Linear(*width) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(x)))))


def _upsample(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
