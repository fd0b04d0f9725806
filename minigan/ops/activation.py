"""Activations, and bias + noise + activation in one step.

At a kink the slope is that of the left side, as in PyTorch: relu has slope 0 at 0, leaky_relu
its negative slope.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigan.autograd import Function
from minigan.backend import Array
from minigan.errors import ShapeError, UsageError, did_you_mean
from minigan.ops.elementwise import Exp, clamp
from minigan.ops.shape import sum_to
from minigan.tensor import Tensor

# Piecewise linear ------------------------------------------------------------------------------


class LeakyRelu(Function):
    """y = x where x > 0, else slope x.   dx = g where y > 0, else slope g."""

    saves = ("out",)
    slope: float

    def forward(self, x: Array) -> Array:
        return self.kernels.leaky_relu(x, self.slope)

    def backward(self, g: Any, out: Any) -> Any:
        # Only the sign of the result matters, so it is a constant to higher derivatives.
        y = out.data if isinstance(out, Tensor) else out
        return LeakyReluGrad.on(g, y=y, slope=self.slope)


class LeakyReluGrad(Function):
    """dx = g where y > 0, else slope g; linear in g, with itself as gradient."""

    y: Array
    slope: float

    def forward(self, g: Array) -> Array:
        return self.kernels.leaky_relu_backward(g, self.y, self.slope)

    def backward(self, g: Any) -> Any:
        return LeakyReluGrad.on(g, y=self.y, slope=self.slope)


class Relu(LeakyRelu):
    """y = x where x > 0, else 0.   dx = g where y > 0, else 0."""

    slope = 0.0


def relu(x: Tensor) -> Tensor:
    """x where x > 0, else 0."""
    return Relu.apply(x)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, else negative_slope x.

    The default is PyTorch's; the GAN literature mostly uses 0.2.
    """
    if negative_slope < 0:  # the sign of y then does not tell the sign of x
        return relu(x) + clamp(x, high=0.0) * negative_slope
    return LeakyRelu.apply(x, slope=float(negative_slope))


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight x (He et al., 2015).

    Parameters
    ----------
    x : (N,C,*spatial).
    weight : (C,), or (1,) for one slope for all.
    """
    if x.ndim < 2 or weight.shape not in ((1,), (x.shape[1],)):
        raise ShapeError(
            f"prelu: weight {weight.shape} does not fit the input {x.shape}",
            fix="its shape must be (1,) or (channels,)",
        )
    slope = weight.reshape(1, -1, *[1] * (x.ndim - 2))
    return relu(x) + clamp(x, high=0.0) * slope


# Smooth ----------------------------------------------------------------------------------------


class Sigmoid(Function):
    """y = 1 / (1 + e^-x).   dx = g y (1 - y)."""

    saves = ("out",)

    def forward(self, x: Array) -> Array:
        return self.kernels.sigmoid(x)

    def backward(self, g: Any, out: Any) -> Any:
        if isinstance(g, Tensor):
            return g * (out * (1.0 - out))
        return self.kernels.sigmoid_backward(g, out)


class Softplus(Function):
    """y = log(1 + e^x).   dx = g sigmoid(x)."""

    saves = ("x",)

    def forward(self, x: Array) -> Array:
        return self.kernels.softplus(x)

    def backward(self, g: Any, x: Any) -> Any:
        if isinstance(g, Tensor):
            return g * Sigmoid.on(x)
        return self.kernels.softplus_backward(g, x)


class Silu(Function):
    """y = x s,   s = sigmoid(x).   dx = g s (1 + x (1 - s))."""

    saves = ("x",)

    def forward(self, x: Array) -> Array:
        return self.kernels.silu(x)

    def backward(self, g: Any, x: Any) -> Any:
        if not isinstance(g, Tensor):
            return self.kernels.silu_backward(g, x)
        s = Sigmoid.on(x)
        return g * (s * (x * (1.0 - s) + 1.0))


class Elu(Function):
    """y = x where x > 0, else alpha (e^x - 1).   dx = g where x > 0, else g alpha e^x."""

    saves = ("x",)
    alpha: float

    def forward(self, x: Array) -> Array:
        return self.kernels.elu(x, self.alpha)

    def backward(self, g: Any, x: Any) -> Any:
        if not isinstance(g, Tensor):
            return self.kernels.elu_backward(g, x, self.alpha)
        above = (x.data > 0).astype(x.dtype)
        return g * above + g * (1 - above) * Exp.on(clamp(x, high=0.0)) * self.alpha


class Gelu(Function):
    """y = x P(Z < x) for a standard normal Z.   dx = g (P(Z < x) + x e^(-x^2/2) / sqrt(2 pi))."""

    saves = ("x",)

    def forward(self, x: Array) -> Array:
        return self.kernels.gelu(x)

    def backward(self, g: Any, x: Any) -> Any:
        if not isinstance(g, Tensor):
            return self.kernels.gelu_backward(g, x)
        density = Exp.on(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
        return g * (NormalCdf.on(x) + x * density)


class NormalCdf(Function):
    """y = P(Z < x) for a standard normal Z.   dx = g e^(-x^2 / 2) / sqrt(2 pi)."""

    saves = ("x",)

    def forward(self, x: Array) -> Array:
        return self.kernels.normal_cdf(x)

    def backward(self, g: Any, x: Any) -> Any:
        return g * (Exp.on(x * x * -0.5) * (1 / math.sqrt(2 * math.pi)))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    return Sigmoid.apply(x)


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), also called swish."""
    return Silu.apply(x)


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """log(1 + e^(beta x)) / beta, without overflow for any x (so it needs no threshold)."""
    if beta <= 0:
        raise UsageError(f"softplus: beta must be positive, not {beta}")
    return Softplus.apply(x) if beta == 1 else Softplus.apply(x * beta) * (1 / beta)


def log_sigmoid(x: Tensor) -> Tensor:
    """log(1 / (1 + e^-x)) = -softplus(-x)."""
    return -Softplus.apply(-x)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else alpha (e^x - 1)."""
    return Elu.apply(x, alpha=float(alpha))


def selu(x: Tensor) -> Tensor:
    """Scaled `elu` that keeps mean 0 and variance 1 (Klambauer et al., 2017)."""
    return elu(x, 1.6732632423543772848170429916717) * 1.0507009873554804934193349852946


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x P(Z < x) for a standard normal Z (Hendrycks and Gimpel, 2016).

    Parameters
    ----------
    x : any shape.
    approximate : "none" is exact to rounding; "tanh" is the formula
        x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, off by up to 5e-4.
    """
    if approximate == "none":
        return Gelu.apply(x)
    if approximate != "tanh":
        raise UsageError(f"gelu: approximate is 'none' or 'tanh', not '{approximate}'")
    inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
    return x * Sigmoid.apply(inner * 2.0)  # (1 + tanh u) / 2 without its cancellation for u << 0


def maxout(x: Tensor, pieces: int, dim: int = 1) -> Tensor:
    """The largest of every `pieces` neighbours along an axis (Goodfellow et al., 2013).

    The discriminator of the first GAN: a linear layer of pieces * width outputs, then maxout.
    """
    dim = dim % max(x.ndim, 1)
    if pieces < 1 or dim >= x.ndim or x.shape[dim] % pieces:
        raise ShapeError(
            f"maxout: axis {dim} of {x.shape} does not split into groups of {pieces}",
            fix="its length must be a multiple of pieces",
        )
    groups = (*x.shape[:dim], x.shape[dim] // pieces, pieces, *x.shape[dim + 1 :])
    return x.reshape(groups).max(dim + 1)


# Bias, noise and activation --------------------------------------------------------------------

ACTIVATIONS = ("linear", "relu", "lrelu", "tanh", "sigmoid")


class BiasAct(Function):
    """y = act(z) gain,   z = x + bias + strength noise.   dx = g gain act'(z).

    dbias = sum of dx over all but channels,   dnoise = sum of dx strength over channels,
    dstrength = sum of dx noise over all but channels. act'(z) is a function of y alone, so x is
    not kept: the result, which the next layer keeps anyway, serves every order of derivatives.
    """

    saves = ("noise", "strength", "out")
    activation: str
    slope: float
    gain: float

    def forward(
        self, x: Array, bias: Array | None, noise: Array | None, strength: Array | None
    ) -> Array:
        return self.kernels.bias_act(
            x, bias, noise, strength, self.activation, self.slope, self.gain
        )

    def backward(self, g: Any, noise: Any, strength: Any, out: Any) -> Any:
        if not isinstance(g, Tensor):
            return self.kernels.bias_act_backward(
                g, out, noise, strength, self.activation, self.slope, self.gain, self.needs
            )
        dx = self._through_activation(g, out)
        channels, others = (1, -1, *[1] * (g.ndim - 2)), (0, *range(2, g.ndim))
        dbias = dx.sum(others) if self.needs[1] else None
        dnoise = dstrength = None
        if self.needs[2]:
            dnoise = sum_to(dx * strength.reshape(channels), noise.shape)
        if self.needs[3]:
            dstrength = sum_to((dx * noise).sum(others), strength.shape)
        return dx, dbias, dnoise, dstrength

    def _through_activation(self, g: Tensor, out: Tensor) -> Tensor:
        if self.activation in ("relu", "lrelu"):
            slope = self.slope if self.activation == "lrelu" else 0.0
            return LeakyReluGrad.apply(g, y=out.data, slope=slope) * self.gain
        if self.activation == "linear":
            return g * self.gain
        u = out / self.gain
        slope_of_u = 1.0 - u * u if self.activation == "tanh" else u * (1.0 - u)
        return g * slope_of_u * self.gain


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    noise: Tensor | Array | None = None,
    noise_strength: Tensor | None = None,
    activation: str = "linear",
    slope: float = 0.2,
    gain: float = 1.0,
) -> Tensor:
    """act(x + bias + noise_strength noise) gain, in one pass (Karras et al., StyleGAN).

    Parameters
    ----------
    x : (N,C,*spatial).
    bias : (C,).
    noise : (N,1,*spatial) or (1,1,*spatial), the same for every channel; a constant usually.
    noise_strength : () or (1,) for one strength (StyleGAN2), (C,) for one per channel (StyleGAN).
    activation : "linear", "relu", "lrelu", "tanh" or "sigmoid".
    slope : of lrelu below 0, not negative.
    gain : positive; sqrt(2) keeps the variance through lrelu in StyleGAN2.
    """
    if activation not in ACTIVATIONS:
        raise UsageError(
            f"bias_act: unknown activation '{activation}'{did_you_mean(activation, ACTIVATIONS)}",
            fix=f"use one of {', '.join(ACTIVATIONS)}",
        )
    if gain <= 0 or slope < 0:
        raise UsageError(
            f"bias_act: gain {gain} and slope {slope}",
            why="the gradient is taken from the sign of the result",
            fix="use gain > 0 and slope >= 0",
        )
    if x.ndim < 2 or (bias is not None and bias.shape != (x.shape[1],)):
        raise ShapeError(
            f"bias_act: bias {None if bias is None else bias.shape} does not fit {x.shape}",
            fix="bias must have one number per channel (axis 1)",
        )
    if (noise is None) != (noise_strength is None):
        raise UsageError("bias_act: noise and noise_strength belong together; give both or neither")
    grain, strength = _checked_noise(x, noise, noise_strength)
    return BiasAct.apply(
        x, bias, grain, strength, activation=activation, slope=float(slope), gain=float(gain)
    )


def _checked_noise(
    x: Tensor, noise: Tensor | Array | None, strength: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    if noise is None or strength is None:
        return None, None
    grain = Tensor(noise) if isinstance(noise, np.ndarray) else noise
    if grain.shape[1:] != (1, *x.shape[2:]) or grain.shape[0] not in (1, x.shape[0]):
        raise ShapeError(
            f"bias_act: noise {grain.shape} does not fit {x.shape}",
            fix=f"its shape must be {(x.shape[0], 1, *x.shape[2:])}",
        )
    if strength.shape not in ((), (1,), (x.shape[1],)):
        raise ShapeError(
            f"bias_act: noise_strength {strength.shape}: one number or one per channel"
        )
    return grain, strength.reshape(1) if not strength.shape else strength
