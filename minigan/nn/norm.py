"""Normalisation layers. eps and momentum go by keyword only: `BatchNorm2d(64, 0.8)` raises.

Calling a layer with activation="relu" or "leaky_relu" (and negative_slope) does both in one
operation; `Sequential` does so by itself for a norm that is followed by `ReLU` or `LeakyReLU`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.autograd import is_recomputing
from minigan.errors import ShapeError
from minigan.nn.module import Buffer, Module, Parameter
from minigan.ops.norm import batch_norm, group_norm, instance_norm, layer_norm, pixel_norm
from minigan.tensor import Tensor


class _Running(Module):
    """Scale and shift (C,) starting at 1 and 0, and running statistics of what came through."""

    axes: int  # spatial axes of the input; -1: none or one

    def _build(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track: bool
    ) -> None:
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        self.running_mean = Buffer(np.zeros(num_features, np.float32)) if track else None
        self.running_var = Buffer(np.ones(num_features, np.float32)) if track else None
        self.num_batches_tracked = Buffer(np.zeros((), np.int64)) if track else None

    def count(self) -> float:
        """Count this batch; return its share in the running statistics."""
        if self.num_batches_tracked is None:
            return 0.0
        if not is_recomputing():
            self.num_batches_tracked.data[...] += 1
            self.num_batches_tracked.bump()
        if self.momentum is None:
            return 1 / int(self.num_batches_tracked.data)
        return self.momentum

    def _check(self, x: Tensor) -> None:
        spatial = x.ndim - 2
        if spatial != self.axes and not (self.axes <= 1 and spatial in (0, 1)):
            wanted = {1: "(N,C) or (N,C,L)", 2: "(N,C,H,W)", 3: "(N,C,D,H,W)"}[self.axes]
            raise ShapeError(
                f"{type(self).__name__}: the input must be {wanted}",
                where=f"input {x.shape}",
                fix=f"use the norm for {spatial} spatial axes, or reshape",
            )

    def extra_repr(self) -> str:
        text = f"{self.num_features}, eps={self.eps:g}, momentum={self.momentum}"
        text += "" if self.weight is not None else ", affine=False"
        return text + f", track_running_stats={self.running_mean is not None}"


class _BatchNorm(_Running):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, statistics over the batch and space.

    While training the statistics are those of the batch (var biased), and
    running <- (1 - momentum) running + momentum batch (var unbiased). In eval mode the running
    ones are used.

    Parameters
    ----------
    num_features : C of an input (N,C,...).
    eps : added to var.
    momentum : share of a new batch (Keras calls 1 - momentum so); None averages all batches
        with equal shares.
    affine : whether there are weight and bias (C,).
    track_running_stats : False always uses the statistics of the batch.
    """

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        self._build(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Tensor, **activation: Any) -> Tensor:
        self._check(x)
        share = self.count() if self.training else 0.0
        return batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum=share,
            eps=self.eps,
            **activation,
        )


class BatchNorm1d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    axes = 1


class BatchNorm2d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    axes = 2


class BatchNorm3d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    axes = 3


class _InstanceNorm(_Running):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, statistics of each sample and channel.

    Parameters
    ----------
    num_features : C of an input (N,C,...).
    eps : added to var.
    momentum : share of a new batch in the running statistics, if they are tracked.
    affine : whether there are weight and bias (C,).
    track_running_stats : True uses averages over all samples seen, in eval mode.
    """

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
    ) -> None:
        self._build(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Tensor, **activation: Any) -> Tensor:
        self._check(x)
        own = self.training or self.running_mean is None
        return instance_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            own,
            momentum=self.count() if self.training else 0.0,
            eps=self.eps,
            **activation,
        )


class InstanceNorm1d(_InstanceNorm):
    __doc__ = _InstanceNorm.__doc__
    axes = 1


class InstanceNorm2d(_InstanceNorm):
    __doc__ = _InstanceNorm.__doc__
    axes = 2


class InstanceNorm3d(_InstanceNorm):
    __doc__ = _InstanceNorm.__doc__
    axes = 3


class LayerNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, statistics of each sample's last axes.

    Parameters
    ----------
    normalized_shape : lengths of the axes to normalise over.
    eps : added to the biased var.
    elementwise_affine : whether there are weight and bias, shaped normalized_shape.
    bias : whether there is a bias beside the weight.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        *,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape, self.eps = tuple(shape), eps
        affine = elementwise_affine
        self.weight = Parameter(np.ones(shape, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(shape, np.float32)) if affine and bias else None

    def forward(self, x: Tensor, **activation: Any) -> Tensor:
        affine = self.weight, self.bias
        return layer_norm(x, self.normalized_shape, *affine, eps=self.eps, **activation)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps:g}"


class GroupNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, statistics of groups of channels.

    Parameters
    ----------
    num_groups : groups of neighbouring channels; 1 is layer norm over C,H,W.
    num_channels : C of an input (N,C,...).
    eps : added to the biased var.
    affine : whether there are weight and bias (C,).
    """

    def __init__(
        self, num_groups: int, num_channels: int, *, eps: float = 1e-5, affine: bool = True
    ) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ShapeError(
                f"GroupNorm: {num_channels} channels do not split into {num_groups} groups"
            )
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = Parameter(np.ones(num_channels, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_channels, np.float32)) if affine else None

    def forward(self, x: Tensor, **activation: Any) -> Tensor:
        affine = self.weight, self.bias
        return group_norm(x, self.num_groups, *affine, eps=self.eps, **activation)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps:g}"


class PixelNorm(Module):
    """y = x / sqrt(mean over channels of x^2 + eps) (ProGAN); also for latent vectors (N,C)."""

    def __init__(self, *, eps: float = 1e-8) -> None:
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return pixel_norm(x, eps=self.eps)
