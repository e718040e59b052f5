"""A dense CRF: label probabilities made consistent among near pixels of like colour (Krähenbühl & Koltun, NIPS 2011).

The energy has Potts terms between all pairs of pixels, by a bilateral kernel of position and colour and a Gaussian one
of position; mean-field inference (their algorithm 1). Kernels are normalised symmetrically, k_ij / sqrt(n_i n_j) with
n_i the sum of row i, as in the authors' program, so that weights mean the same at every image size. The sums are
computed as they stand, without their lattice: over all pixels of a small image, over a grid of those of a large one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 2048  # pixels whose kernel rows are computed at once
_MAX_KEPT = 2**25  # kernel values of an image up to which they stay in memory (128 MiB) and are computed once


@dataclass(frozen=True)
class DenseCrf:
    """Settings; the paper names them w1, theta_alpha, theta_beta, w2, theta_gamma."""

    iterations: int
    appearance_weight: float
    position_frac: float
    """Reach of the bilateral kernel as a standard deviation, in shares of the image's longer side."""
    colour_scale: float
    """Standard deviation of the bilateral kernel in colour, of 255."""
    smoothness_weight: float = 1.0
    smoothness_px: float = 1.0
    """Standard deviation of the Gaussian kernel, px; it is cut off at four of them."""
    max_sources: int = 4096
    """Pixels that the bilateral sums run over at most. A larger image gives every s-th of every s-th row."""

    def refine(self, probs: np.ndarray, image: np.ndarray, *, device: torch.device) -> np.ndarray:
        """Mean-field marginals.

        Args:
            probs: float (L, H, W), not negative, the unary terms are their negative logarithms.
            image: uint8 (H, W, 3).
        Returns: float32 (L, H, W), sum 1 over L.
        """
        unary = torch.from_numpy(probs).to(device).float().clamp(min=1e-6).log()  # (L, H, W)
        appearance = _Bilateral.of(
            torch.from_numpy(image).to(device),
            position_px=self.position_frac * max(image.shape[:2]),
            colour_scale=self.colour_scale,
            max_sources=self.max_sources,
        )
        smoothness = _Gaussian(unary.shape[1:], scale_px=self.smoothness_px, device=device)
        marginals = unary.softmax(dim=0)
        for _ in range(self.iterations):
            pull = self.appearance_weight * appearance(marginals) + self.smoothness_weight * smoothness(marginals)
            marginals = (unary + pull).softmax(dim=0)  # Potts: terms that are equal for all labels cancel
        return marginals.cpu().numpy()


class _Gaussian:
    """Sums with exp(-|p_i - p_j|^2 / 2 s^2), j other than i, as two one-dimensional convolutions."""

    def __init__(self, size: torch.Size, *, scale_px: float, device: torch.device) -> None:
        radius = int(np.ceil(4 * scale_px))
        offsets = torch.arange(-radius, radius + 1, device=device, dtype=torch.float32)
        self._taps = torch.exp(-0.5 * (offsets / scale_px) ** 2)
        self._norm = self._sums(torch.ones(1, *size, device=device)).clamp(min=1e-12).rsqrt()

    def __call__(self, values: Tensor) -> Tensor:
        """float (L, H, W) -> as `values`."""
        return self._norm * self._sums(self._norm * values)

    def _sums(self, values: Tensor) -> Tensor:
        padding = len(self._taps) // 2
        rows = F.conv2d(values[:, None], self._taps.view(1, 1, -1, 1), padding=(padding, 0))
        return F.conv2d(rows, self._taps.view(1, 1, 1, -1), padding=(0, padding))[:, 0] - values


class _Bilateral:
    """Sums with exp(-|f_i - f_j|^2 / 2) over sources j other than i; f is position and colour, each over its scale."""

    def __init__(self, features: Tensor, sources: Tensor) -> None:
        """`features` float (N, 5); `sources`: indices of the pixels summed over, int64 (M)."""
        self._features, self._sources = features, sources
        self._kept = list(self._rows()) if len(features) * len(sources) <= _MAX_KEPT else None
        ones = torch.ones(1, len(features), device=features.device)
        self._norm = self._sums(ones).clamp(min=1e-12).rsqrt()  # (1, N)

    @classmethod
    def of(cls, image: Tensor, *, position_px: float, colour_scale: float, max_sources: int) -> _Bilateral:
        height, width = image.shape[:2]
        grid = torch.meshgrid(*(torch.arange(n, device=image.device) for n in (height, width)), indexing="ij")
        position = torch.stack(grid, dim=-1) / position_px
        features = torch.cat([position, image.float() / colour_scale], dim=-1).flatten(0, 1)
        step = int(np.ceil(np.sqrt(height * width / max_sources)))
        index = torch.arange(height * width, device=image.device).view(height, width)
        return cls(features, index[step // 2 :: step, step // 2 :: step].flatten())

    def __call__(self, values: Tensor) -> Tensor:
        """float (L, H, W) -> as `values`."""
        return (self._norm * self._sums(self._norm * values.flatten(1))).view_as(values)

    def _sums(self, values: Tensor) -> Tensor:
        """float (L, N) -> (L, N)."""
        weighed = values[:, self._sources].T  # (M, L)
        return torch.cat([kernel @ weighed for kernel in (self._kept or self._rows())]).T

    def _rows(self) -> Iterator[Tensor]:
        """The kernel, float32 (chunk, M) for chunk after chunk of the pixels; 0 for a pixel and itself."""
        of_sources = self._features[self._sources]  # (M, 5)
        for pixels in torch.arange(len(self._features), device=self._features.device).split(_CHUNK):
            # the default mode is inexact where colours are alike, which is what matters here
            distance = torch.cdist(self._features[pixels], of_sources, compute_mode="donot_use_mm_for_euclid_dist")
            kernel = distance.square_().mul_(-0.5).exp_()
            yield kernel.masked_fill_(pixels[:, None] == self._sources, 0)
