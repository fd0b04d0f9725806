"""Activations as modules, for Sequential; each is the function of the same name in `functional`."""

from __future__ import annotations

import numpy as np

from minigan.nn.module import Module, Parameter
from minigan.ops import activation as f
from minigan.ops.elementwise import tanh
from minigan.ops.softmax import log_softmax, softmax
from minigan.tensor import Tensor


class ReLU(Module):
    """y = max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return f.relu(x)


class LeakyReLU(Module):
    """y = x where x > 0, negative_slope x elsewhere. The GAN literature mostly uses 0.2."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return f.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"{self.negative_slope}"


class PReLU(Module):
    """Leaky ReLU with a learned slope, one for all or one per channel.

    Parameters
    ----------
    num_parameters : 1, or the channels of the input (N,C,...).
    init : the slope to begin with.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.weight = Parameter(np.full(num_parameters, init, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        return f.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.size}"


class Sigmoid(Module):
    """y = 1 / (1 + e^-x)."""

    def forward(self, x: Tensor) -> Tensor:
        return f.sigmoid(x)


class Tanh(Module):
    """y = tanh x."""

    def forward(self, x: Tensor) -> Tensor:
        return tanh(x)


class Softplus(Module):
    """y = log(1 + e^(beta x)) / beta."""

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return f.softplus(x, self.beta)


class SiLU(Module):
    """y = x sigmoid(x), also called swish."""

    def forward(self, x: Tensor) -> Tensor:
        return f.silu(x)


class ELU(Module):
    """y = x where x > 0, alpha (e^x - 1) elsewhere."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return f.elu(x, self.alpha)


class SELU(Module):
    """ELU with the constants that keep mean 0 and variance 1 from layer to layer."""

    def forward(self, x: Tensor) -> Tensor:
        return f.selu(x)


class GELU(Module):
    """y = x Phi(x), Phi the normal distribution function; approximate="tanh" is faster."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return f.gelu(x, self.approximate)


class Maxout(Module):
    """The largest of each group of `pieces` neighbouring channels (the first GAN's D)."""

    def __init__(self, pieces: int, dim: int = 1) -> None:
        self.pieces, self.dim = pieces, dim

    def forward(self, x: Tensor) -> Tensor:
        return f.maxout(x, self.pieces, self.dim)

    def extra_repr(self) -> str:
        return f"{self.pieces}"


class Softmax(Module):
    """y_i = e^x_i / sum e^x_j along `dim`. Never before a cross entropy: that takes logits."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return softmax(x, self.dim)


class LogSoftmax(Module):
    """y_i = x_i - log sum e^x_j along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return log_softmax(x, self.dim)
