"""Feature maps of the diffusion model -> one fused map (paper section 3.3, "visual encoder")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffground.errors import UserError


class MixConv(nn.Module):
    """Two 3x3 convolutions around a residual: a = ReLU(BN(x)); a + conv(ReLU(BN(conv(a)))).

    The residual is `a`, not `x`, as in the released code. Batch norm has no affine part (eps 1e-4).
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels, eps=1e-4, affine=False)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels, eps=1e-4, affine=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """float (B, C, s, s) -> the same shape."""
        activated = F.relu(self.norm1(x))
        return activated + self.conv2(F.relu(self.norm2(self.conv1(activated))))


class VisualEncoder(nn.Module):
    """Coarse to fine: reduce each size by a 1x1 convolution, upsample what came before, concatenate, mix.

    feature_channels: size (px) -> channels of that size's maps, concatenated; any number of sizes.
    reduced_channels: channels after the reduction, one per size, coarse to fine (paper: 16, 32, 64, 128).

    Raises: UserError when `reduced_channels` does not give one width per size.
    """

    def __init__(self, *, feature_channels: Mapping[int, int], reduced_channels: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sorted(feature_channels))
        if len(reduced_channels) != len(self.sizes):
            raise UserError(
                f"grounding.reduced_channels needs one width for each feature size of this generator "
                f"{list(self.sizes)}, got {list(reduced_channels)}; set {len(self.sizes)} numbers"
            )
        self.out_channels = sum(reduced_channels)
        self.reductions = nn.ModuleList(
            nn.Conv2d(feature_channels[size], reduced, 1, bias=False)
            for size, reduced in zip(self.sizes, reduced_channels, strict=True)
        )
        widths = [sum(reduced_channels[: i + 1]) for i in range(1, len(self.sizes))]
        self.mixers = nn.ModuleList(MixConv(channels=width) for width in widths)

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """`maps`: size s -> float (B, C_s, s, s). Returns float (B, D, S, S) at the finest size S."""
        fused = self.reductions[0](maps[self.sizes[0]])
        for i, size in enumerate(self.sizes[1:]):
            fused = F.interpolate(fused, size=(size, size), mode="bilinear", align_corners=False)
            fused = torch.cat([fused, self.reductions[i + 1](maps[size])], dim=1)
            fused = self.mixers[i](fused)
        return fused
