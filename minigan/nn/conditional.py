"""Norms steered by a condition: a class (conditional batch norm), a style (AdaIN), a label map."""

from __future__ import annotations

from typing import Any

from minigan.errors import UsageError
from minigan.nn.activation import ReLU
from minigan.nn.containers import Sequential
from minigan.nn.conv import Conv2d
from minigan.nn.linear import Embedding, Linear
from minigan.nn.module import Module
from minigan.nn.norm import BatchNorm2d, _Running
from minigan.ops.modulate import adain, conditional_batch_norm, spade
from minigan.ops.resample import interpolate
from minigan.ops.shape import chunk
from minigan.tensor import Tensor


class ConditionalBatchNorm2d(_Running):
    """y = x^ gamma[k] + beta[k], x^ the batch-normalised input, k the class of the sample.

    Source: Dumoulin et al. (2017); in GANs: Miyato and Koyama, cGANs with Projection
    Discriminator (2018).

    Parameters
    ----------
    num_features : C of an input (N,C,H,W).
    num_classes : rows of the tables `gamma` (starts at 1) and `beta` (starts at 0).
    eps, momentum : see `BatchNorm2d`.
    """

    axes = 2

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
    ) -> None:
        self._build(num_features, eps, momentum, affine=False, track=True)
        self.gamma = Embedding(num_classes, num_features)
        self.beta = Embedding(num_classes, num_features)
        self.gamma.weight.data[...], self.beta.weight.data[...] = 1, 0

    def forward(self, x: Tensor, labels: Tensor, **activation: Any) -> Tensor:
        self._check(x)
        return conditional_batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.gamma(labels),
            self.beta(labels),
            self.training,
            momentum=self.count() if self.training else 0.0,
            eps=self.eps,
            **activation,
        )


class AdaIN(Module):
    """y = instance_norm(x) (1 + s) + b,   (s, b) = style(w), a Linear.

    Source: Huang and Belongie (2017); in GANs: Karras et al., StyleGAN (2018). There the bias of
    s starts at 1 and s alone is the factor: the same function.

    Parameters
    ----------
    num_features : C of an input (N,C,H,W).
    style_dim : length of w (N, style_dim).
    eps : added to the variance.
    """

    def __init__(self, num_features: int, style_dim: int, *, eps: float = 1e-5) -> None:
        self.eps = eps
        self.style = Linear(style_dim, 2 * num_features)
        if self.style.bias is not None:
            self.style.bias.data[...] = 0

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale, shift = chunk(self.style(w), 2, 1)
        return adain(x, scale, shift, eps=self.eps)


class SPADE(Module):
    """y = norm(x) (1 + gamma(m)) + beta(m): every pixel is steered by the label map m around it.

    A small network makes gamma and beta from m, resized to x: a = ReLU(mlp_shared(m)),
    gamma = mlp_gamma(a), beta = mlp_beta(a).

    Source: Park et al., Semantic Image Synthesis with Spatially-Adaptive Normalization (2019).

    Parameters
    ----------
    num_features : C of an input (N,C,H,W).
    label_channels : K of a label map (N,K,h,w), one channel per class.
    hidden : channels of a.
    kernel_size : of the three convolutions, odd.
    norm : "batch", "instance" or "layer", all without weights of their own.
    """

    def __init__(
        self,
        num_features: int,
        label_channels: int,
        hidden: int = 128,
        kernel_size: int = 3,
        norm: str = "batch",
    ) -> None:
        if norm not in ("batch", "instance", "layer"):
            raise UsageError(f"SPADE: unknown norm '{norm}'", fix="batch, instance or layer")
        self.norm = norm
        if norm == "batch":
            self.param_free_norm = BatchNorm2d(num_features, affine=False)
        half = kernel_size // 2
        self.mlp_shared = Sequential(
            Conv2d(label_channels, hidden, kernel_size, padding=half), ReLU()
        )
        self.mlp_gamma = Conv2d(hidden, num_features, kernel_size, padding=half)
        self.mlp_beta = Conv2d(hidden, num_features, kernel_size, padding=half)

    def forward(self, x: Tensor, label_map: Tensor, **activation: Any) -> Tensor:
        if label_map.shape[2:] != x.shape[2:]:
            label_map = interpolate(label_map, x.shape[2:], mode="nearest")
        a = self.mlp_shared(label_map)  # N,hidden,H,W
        gamma, beta = self.mlp_gamma(a), self.mlp_beta(a)
        if self.norm != "batch":
            return spade(x, gamma, beta, norm=self.norm, **activation)
        running = self.param_free_norm  # keeps the statistics; the fused operation does its work
        return spade(
            x,
            gamma,
            beta,
            running.running_mean,
            running.running_var,
            running.training,
            momentum=running.count() if running.training else 0.0,
            eps=running.eps,
            **activation,
        )

    def extra_repr(self) -> str:
        return f"norm='{self.norm}'"
