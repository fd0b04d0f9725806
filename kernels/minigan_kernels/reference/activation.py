"""Activations by their definitions, and bias + noise + activation in one step (StyleGAN)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def relu(x: Array) -> Array:
    """x where x > 0, else 0."""
    return np.maximum(x, 0)


def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """x where x > 0, else negative_slope x; relu for negative_slope = 0."""
    if negative_slope == 0:
        return relu(x)
    return np.where(x > 0, x, negative_slope * x).astype(x.dtype)


def leaky_relu_backward(g: Array, y: Array, negative_slope: float) -> Array:
    """g where y > 0, else negative_slope g; y is the result, whose sign is that of the input."""
    return np.where(y <= 0, negative_slope * g if negative_slope else 0, g).astype(g.dtype)


def prelu(x: Array, weight: Array) -> Array:
    """leaky_relu whose slope is learned: one number, or one per channel."""
    y = x.copy()
    for c in range(x.shape[1]):
        slope = weight[c] if weight.size > 1 else weight[0]
        y[:, c] = np.where(x[:, c] > 0, x[:, c], slope * x[:, c])
    return y


def elu(x: Array, alpha: float = 1.0) -> Array:
    """x where x > 0, else alpha (e^x - 1)."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_backward(g: Array, x: Array, alpha: float = 1.0) -> Array:
    """g where x > 0, else g alpha e^x."""
    return g * np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0))).astype(x.dtype)


def selu(x: Array) -> Array:
    """scale elu(x, alpha), the constants that keep mean 0 and variance 1."""
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def normal_cdf(x: Array) -> Array:
    """Probability that a standard normal number is below x: erfc(-x / sqrt 2) / 2."""
    return np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in x.ravel()], x.dtype).reshape(x.shape)


def gelu(x: Array, approximate: str = "none") -> Array:
    """x normal_cdf(x), or its approximation by tanh."""
    below = normal_cdf(x)
    if approximate == "tanh":
        below = (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    y: Array = x * below
    return y


def gelu_backward(g: Array, x: Array) -> Array:
    """g (normal_cdf(x) + x e^(-x^2 / 2) / sqrt(2 pi))."""
    density = np.exp(-x * x / 2) * x.dtype.type(1 / math.sqrt(2 * math.pi))
    dx: Array = g * (normal_cdf(x) + x * density)
    return dx


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x)."""
    y: Array = 1 / (1 + np.exp(-x))
    return y


def sigmoid_backward(g: Array, y: Array) -> Array:
    """g y (1 - y), y the result."""
    return g * (y * (1 - y))


def exp(x: Array) -> Array:
    """e^x."""
    return np.exp(x)


def tanh(x: Array) -> Array:
    """(e^x - e^-x) / (e^x + e^-x)."""
    return np.tanh(x)


def tanh_backward(g: Array, y: Array) -> Array:
    """g (1 - y^2), y the result."""
    return g - g * y * y


def silu(x: Array) -> Array:
    """x sigmoid(x), also called swish."""
    return x * sigmoid(x)


def silu_backward(g: Array, x: Array) -> Array:
    """g s (1 + x (1 - s)),   s = sigmoid(x)."""
    s = sigmoid(x)
    return g * (s * (1 + x * (1 - s)))


def softplus_backward(g: Array, x: Array) -> Array:
    """g sigmoid(x)."""
    return g * sigmoid(x)


def softplus(x: Array, beta: float = 1.0) -> Array:
    """log(1 + e^(beta x)) / beta."""
    return np.logaddexp(0, beta * x) / beta


def log_sigmoid(x: Array) -> Array:
    """log(1 / (1 + e^-x))."""
    return -softplus(-x)


def softmax(x: Array, dim: int = -1) -> Array:
    """e^x / sum e^x along an axis; 0 where all x are -infinity."""
    top = x.max(axis=dim, keepdims=True)
    powers = np.exp(x - np.where(top == -np.inf, 0, top))
    total = powers.sum(axis=dim, keepdims=True)
    y: Array = powers / np.where(total == 0, 1, total)
    return y


def softmax_backward(g: Array, y: Array, dim: int = -1) -> Array:
    """dx_i = sum over j of g_j y_j (delta_ij - y_i), from the result y."""
    return y * (g - (g * y).sum(axis=dim, keepdims=True))


def log_softmax(x: Array, dim: int = -1) -> Array:
    """x - log sum e^x along an axis."""
    return x - logsumexp(x, dim, keepdims=True)


def log_softmax_backward(g: Array, y: Array, dim: int = -1) -> Array:
    """dx_i = sum over j of g_j (delta_ij - e^y_i), from the result y."""
    return g - np.exp(y) * g.sum(axis=dim, keepdims=True)


def logsumexp(x: Array, dim: int = -1, keepdims: bool = False) -> Array:
    """log sum e^x along an axis."""
    top = x.max(axis=dim, keepdims=True)
    y: Array = np.log(np.exp(x - top).sum(axis=dim, keepdims=True)) + top
    return y if keepdims else y.squeeze(dim)


def maxout(x: Array, pieces: int, dim: int = 1) -> Array:
    """The largest of every `pieces` neighbours along an axis."""
    starts = np.arange(0, x.shape[dim], pieces)
    return np.maximum.reduceat(x, starts, axis=dim)


def add_bias(y: Array, bias: Array) -> None:
    """y += bias, one number per channel, in place."""
    for c in range(y.shape[1]):
        y[:, c] += bias[c]


def channel_sum(g: Array) -> Array:
    """Sum over all axes but channels: the gradient of a bias."""
    return np.array([g[:, c].sum(dtype=g.dtype) for c in range(g.shape[1])], g.dtype)


def bias_act(
    x: Array,
    bias: Array | None,
    noise: Array | None,
    noise_strength: Array | None,
    activation: str,
    slope: float,
    gain: float,
) -> Array:
    """y = act(x + bias + noise_strength noise) gain.

    Parameters
    ----------
    x : (N,C,*spatial)
    bias : (C,)
    noise : (N,1,*spatial) or (1,1,*spatial), the same for all channels.
    noise_strength : one number (shape (1,)) or one per channel (C,).
    activation : "linear", "relu", "lrelu" (with `slope`), "tanh" or "sigmoid".
    """
    channels = (1, -1) + (1,) * (x.ndim - 2)
    z = x
    if bias is not None:
        z = z + bias.reshape(channels)
    if noise is not None and noise_strength is not None:
        z = z + noise_strength.reshape(channels) * noise
    functions: dict[str, Callable[[Array], Array]] = {
        "linear": lambda z: z,
        "relu": relu,
        "lrelu": lambda z: leaky_relu(z, slope),
        "tanh": np.tanh,
        "sigmoid": sigmoid,
    }
    return np.asarray(functions[activation](z) * gain, x.dtype)


def bias_act_backward(
    g: Array,
    y: Array,
    noise: Array | None,
    noise_strength: Array | None,
    activation: str,
    slope: float,
    gain: float,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """Return (dx, dbias, dnoise, dnoise_strength), None where not needed.

    The derivative of every activation is a function of its result u = y / gain:
    1, u > 0, (u > 0 or slope), 1 - u^2, u (1 - u). With dx = g act' gain:
    dbias = sum of dx over all but channels, dnoise_strength = the same of dx noise, and
    dnoise = sum of dx noise_strength over channels.
    """
    u = y / gain
    derivatives: dict[str, Callable[[], Any]] = {
        "linear": lambda: np.ones_like(u),
        "relu": lambda: (u > 0).astype(u.dtype),
        "lrelu": lambda: np.where(u > 0, 1, slope),
        "tanh": lambda: 1 - u**2,
        "sigmoid": lambda: u * (1 - u),
    }
    dx = (g * derivatives[activation]() * gain).astype(g.dtype)
    others = (0, *range(2, g.ndim))
    dbias = dx.sum(axis=others) if needs[1] else None
    dnoise = dstrength = None
    if noise is not None and noise_strength is not None:
        if needs[2]:
            channels = (1, -1) + (1,) * (g.ndim - 2)
            dnoise = (dx * noise_strength.reshape(channels)).sum(axis=1, keepdims=True)
            if noise.shape[0] == 1:
                dnoise = dnoise.sum(axis=0, keepdims=True)
        if needs[3]:
            dstrength = (dx * noise).sum(axis=others)
            if noise_strength.size == 1:
                dstrength = dstrength.sum(keepdims=True)
    return dx if needs[0] else None, dbias, dnoise, dstrength
