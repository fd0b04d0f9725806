"""Linear, Embedding, and what all layers with a weight have in common."""

from __future__ import annotations

import math

import numpy as np

from minigan import random
from minigan.backend import Array
from minigan.nn.module import Module, Parameter
from minigan.ops.indexing import embedding
from minigan.ops.linear import linear
from minigan.tensor import Tensor


class Weighted(Module):
    """A layer with a `weight` and perhaps a `bias`, drawn as PyTorch draws them.

    weight ~ U(-1, 1) / sqrt(fan_in),   bias ~ U(-1, 1) / sqrt(fan_in)

    where fan_in = number of elements of weight[0]. (This is "Kaiming uniform with a = sqrt(5)".)

    The weight may be used in another form than it is stored: `nn.spectral_norm` sets `sn`,
    `nn.equalized` sets the two factors. Layers therefore compute with `used_weight` and
    `used_bias`.
    """

    weight: Parameter
    bias: Parameter | None
    out_axis = 0  # of weight; 1 in transposed convolutions
    sn: Module | None = None
    weight_factor: float = 1.0
    bias_factor: float = 1.0

    def reset(self, shape: tuple[int, ...], bias: int | None) -> None:
        """Draw a weight of `shape` and `bias` numbers of bias (None: no bias)."""
        bound = 1 / math.sqrt(max(1, math.prod(shape[1:])))
        self.weight = Parameter(channels_last(uniform(shape, bound)))
        self.bias = None if bias is None else Parameter(uniform((bias,), bound))

    def used_weight(self) -> Tensor:
        """The weight that forward computes with."""
        weight: Tensor = self.weight
        if self.weight_factor != 1:
            weight = weight * self.weight_factor
        return weight if self.sn is None else self.sn(weight)

    def used_bias(self) -> Tensor | None:
        """The bias that forward computes with."""
        if self.bias is None or self.bias_factor == 1:
            return self.bias
        return self.bias * self.bias_factor


def channels_last(array: Array) -> Array:
    """The same values with axis 1 innermost in memory, as convolution kernels read and write it."""
    if array.ndim < 3:
        return array
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def uniform(shape: tuple[int, ...], bound: float) -> Array:
    """float32 numbers U(-bound, bound), from the random stream "init"."""
    return (2 * random.draw("init").random(shape, np.float32) - 1) * np.float32(bound)


def normal(shape: tuple[int, ...], std: float) -> Array:
    """float32 numbers N(0, std), from the random stream "init"."""
    return random.draw("init").standard_normal(shape, np.float32) * np.float32(std)


class Linear(Weighted):
    """y = x W^T + b on the last axis.

    Parameters
    ----------
    in_features, out_features : lengths of the last axis of x and of y; weight is (out, in).
    bias : whether there is a b (out,).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.in_features, self.out_features = in_features, out_features
        self.reset((out_features, in_features), out_features if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.used_weight(), self.used_bias())

    def extra_repr(self) -> str:
        no_bias = "" if self.bias is not None else ", bias=False"
        return f"{self.in_features}, {self.out_features}{no_bias}"


class Embedding(Weighted):
    """A table of vectors: integer k -> row k of weight, which starts as N(0, 1).

    Parameters
    ----------
    num_embeddings : rows; inputs are integers in [0, num_embeddings).
    embedding_dim : length of a row.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = Parameter(normal((num_embeddings, embedding_dim), 1.0))
        self.bias = None

    def forward(self, index: Tensor) -> Tensor:
        return embedding(index, self.used_weight())

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"
