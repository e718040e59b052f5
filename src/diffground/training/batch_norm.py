"""Batch norm over the samples of all processes, so that their number does not change the result."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Let every BatchNorm2d inside of `model` normalise with the samples of all processes while it is trained.

    Each process contributes equally many. Names and values of parameters and buffers stay as they are.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, eps=child.eps, momentum=child.momentum)
                shared.__dict__.update(child.__dict__)
                parent.add_module(name, shared)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """The computation of torch's SyncBatchNorm, which supports only GPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """float of any precision (B, C, H, W) -> the same; computed in float32, like the running statistics."""
        if not self.training:
            return super().forward(input)
        count = input.numel() / input.shape[1] * dist.get_world_size()
        values = input.float()
        mean = _SumOverProcesses.apply(values.sum(dim=(0, 2, 3))) / count  # (C,)
        centred = values - mean[:, None, None]
        variance = _SumOverProcesses.apply(centred.square().sum(dim=(0, 2, 3))) / count
        self._keep(mean.detach(), variance.detach() * count / max(count - 1, 1))
        normed = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            normed = normed * self.weight[:, None, None] + self.bias[:, None, None]
        return normed.to(input.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _sum(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _sum(gradients[0])  # every process reads the sum


def _sum(value: Tensor) -> Tensor:
    total = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
