"""Blocks of large GANs: residual blocks that change the resolution, and self-attention.

The names of layers (c1, c2, c_sc, b1, b2; theta, phi, g, o, gamma) are those of the published
implementations, so that their weights can be renamed to ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigan.errors import ShapeError
from minigan.nn.conv import Conv2d
from minigan.nn.linear import Linear
from minigan.nn.module import Module, Parameter
from minigan.nn.norm import BatchNorm2d, _Running
from minigan.nn.spectral import spectral_norm
from minigan.ops.activation import relu
from minigan.ops.attention import scaled_dot_product_attention
from minigan.ops.modulate import conditional_batch_norm
from minigan.ops.pool import avg_pool2d, max_pool2d
from minigan.ops.resample import interpolate
from minigan.tensor import Tensor

Norm = Callable[[int], Module]  # channels -> a norm


def convolution(
    in_channels: int, out_channels: int, kernel: int, spectral: bool, bias: bool = True
) -> Conv2d:
    """A convolution that keeps the resolution, with spectral norm if wanted."""
    conv = Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
    return spectral_norm(conv) if spectral else conv


class UpBlock(Module):
    """The generator's residual block, which doubles the resolution.

        y = c2(relu(b2(c1(up(relu(b1(x))))))) + up(c_sc(x))

    The papers enlarge the shortcut before its 1x1 convolution. Afterwards is the same function,
    since what enlarges takes weighted means, for a quarter of the products.

    Source: Miyato et al., Spectral Normalization for GANs (2018), appendix B; Miyato and Koyama
    (2018) and Brock et al., BigGAN (2018), with norms that are steered by a condition.

    Parameters
    ----------
    in_channels, out_channels : maps that come and go.
    norm : makes b1 and b2 from their number of channels. They are called with x, with what else
        the block is called with (labels, or a vector), and with activation="relu".
    spectral : whether the convolutions have spectral norm.
    upsample : False keeps the resolution; then there is c_sc only if the channels differ.
    mode : of enlarging: "nearest", or "bilinear" as in the library mimicry.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Norm = BatchNorm2d,
        *,
        spectral: bool = False,
        upsample: bool = True,
        mode: str = "nearest",
    ) -> None:
        self.upsample, self.mode = upsample, mode
        self.b1, self.b2 = norm(in_channels), norm(out_channels)
        self.c1 = convolution(in_channels, out_channels, 3, spectral)
        self.c2 = convolution(out_channels, out_channels, 3, spectral)
        shortcut = upsample or in_channels != out_channels
        self.c_sc = convolution(in_channels, out_channels, 1, spectral) if shortcut else None

    def up(self, x: Tensor) -> Tensor:
        """Twice the height and width."""
        return interpolate(x, scale_factor=2, mode=self.mode) if self.upsample else x

    def forward(self, x: Tensor, *condition: Tensor) -> Tensor:
        h = self.c1(self.up(self.b1(x, *condition, activation="relu")))
        h = self.c2(self.b2(h, *condition, activation="relu"))
        return h + self.up(x if self.c_sc is None else self.c_sc(x))

    def extra_repr(self) -> str:
        return f"upsample={self.upsample}, mode='{self.mode}'"


class DownBlock(Module):
    """The discriminator's residual block, which may halve the resolution; without any norm.

        y = down(c2(relu(c1(relu(x))))) + c_sc(down(x))

    where down takes means of 2x2 pixels. The papers pool the shortcut after its 1x1 convolution;
    before it is the same function for a quarter of the products.

    Source: Miyato et al., Spectral Normalization for GANs (2018), appendix B.

    Parameters
    ----------
    in_channels, out_channels : maps that come and go.
    hidden : maps between c1 and c2: by default as many as come in, or as go out in a `first`
        block. BigGAN has `out_channels` everywhere.
    spectral : whether the convolutions have spectral norm.
    downsample : whether the block halves the resolution; if not, there is c_sc only if the
        channels differ.
    first : leave out the first relu: the input is an image, whose negative half counts.
    relu_shortcut : let the shortcut begin at relu(x). A mistake, which weights of the library
        mimicry were trained with: its relu overwrites the x that the shortcut reads.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int | None = None,
        *,
        spectral: bool = True,
        downsample: bool = True,
        first: bool = False,
        relu_shortcut: bool = False,
    ) -> None:
        self.downsample, self.first, self.relu_shortcut = downsample, first, relu_shortcut
        hidden = hidden or (out_channels if first else in_channels)
        self.c1 = convolution(in_channels, hidden, 3, spectral)
        self.c2 = convolution(hidden, out_channels, 3, spectral)
        shortcut = downsample or in_channels != out_channels
        self.c_sc = convolution(in_channels, out_channels, 1, spectral) if shortcut else None

    def down(self, x: Tensor) -> Tensor:
        """Half the height and width."""
        return avg_pool2d(x, 2) if self.downsample else x

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else relu(x)
        shortcut = self.down(h if self.relu_shortcut else x)
        h = self.down(self.c2(relu(self.c1(h))))
        return h + (shortcut if self.c_sc is None else self.c_sc(shortcut))

    def extra_repr(self) -> str:
        return f"downsample={self.downsample}, first={self.first}"


class SelfAttention(Module):
    """y = x + gamma o(a): every position gathers what it needs from all others.

        a_i = sum over j of p_ij g(x)_j,   p_ij = softmax over j of theta(x)_i . phi(x)_j

    theta, phi, g and o are 1x1 convolutions without bias. Keys phi(x) and values g(x) are reduced
    by 2x2 max pooling, so j runs over a quarter of the positions. gamma is one number that starts
    at 0: at first the block is the identity.

    Source: Zhang et al., Self-Attention GANs (2018), in the form of the authors' code; the paper
    has C/8 channels everywhere and no pooling.

    Parameters
    ----------
    channels : C of an input (N,C,H,W); theta and phi have C/8, g has C/2. H and W must be even.
    spectral : whether the convolutions have spectral norm.
    """

    def __init__(self, channels: int, *, spectral: bool = True) -> None:
        few, half = max(1, channels // 8), max(1, channels // 2)
        self.theta = convolution(channels, few, 1, spectral, bias=False)
        self.phi = convolution(channels, few, 1, spectral, bias=False)
        self.g = convolution(channels, half, 1, spectral, bias=False)
        self.o = convolution(half, channels, 1, spectral, bias=False)
        self.gamma = Parameter(np.zeros(1, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        if height % 2 or width % 2:
            raise ShapeError(
                f"SelfAttention: maps of {height}x{width}",
                why="keys and values are pooled by two",
                fix="place it where height and width are even",
            )
        query = positions(self.theta(x))  # N,HW,C/8
        key = positions(max_pool2d(self.phi(x), 2))  # N,HW/4,C/8
        value = positions(max_pool2d(self.g(x), 2))  # N,HW/4,C/2
        a = scaled_dot_product_attention(query, key, value, scale=1.0)  # N,HW,C/2
        maps = a.transpose(0, 2, 1).reshape(n, -1, height, width)
        return x + self.gamma.reshape(()) * self.o(maps)


class VectorBatchNorm2d(_Running):
    """y = x^ (1 + gain(c)) + shift(c), x^ the batch-normalised input, c a vector per sample.

    gain and shift are Linear layers without bias and with spectral norm. `ConditionalBatchNorm2d`
    has a table of classes instead.

    Source: Brock et al., BigGAN (2018); c is the class embedding beside a part of the noise.

    Parameters
    ----------
    num_features : C of an input (N,C,H,W).
    condition_dim : length of c (N, condition_dim).
    eps, momentum : see `BatchNorm2d`.
    """

    axes = 2

    def __init__(
        self,
        num_features: int,
        condition_dim: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
    ) -> None:
        self._build(num_features, eps, momentum, affine=False, track=True)
        self.gain = spectral_norm(Linear(condition_dim, num_features, bias=False))
        self.shift = spectral_norm(Linear(condition_dim, num_features, bias=False))

    def forward(self, x: Tensor, c: Tensor, **activation: Any) -> Tensor:
        self._check(x)
        return conditional_batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.gain(c) + 1.0,
            self.shift(c),
            self.training,
            momentum=self.count() if self.training else 0.0,
            eps=self.eps,
            **activation,
        )


def positions(x: Tensor) -> Tensor:
    """Maps (N,C,H,W) as a list of positions (N,HW,C)."""
    return x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)
