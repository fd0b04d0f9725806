"""Activations and their gradients on the GPU; the formulas stand in activation.cu."""

from __future__ import annotations

from minigan_kernels.cuda.device import Array, Device
from minigan_kernels.cuda.maps import map_numbers, source, zip_numbers

KERNELS = source(
    "activation.cu",
    maps=(
        *("LeakyRelu", "Elu", "Exp", "Tanh", "Sigmoid", "Softplus", "Silu", "NormalCdf", "Gelu"),
    ),
    zips=(
        *("LeakyReluBackward", "TanhBackward", "SigmoidBackward", "EluBackward"),
        *("SoftplusBackward", "SiluBackward", "GeluBackward"),
    ),
)
SOURCES = (KERNELS,)


def leaky_relu(device: Device, x: Array, negative_slope: float) -> Array:
    """x where x > 0, else negative_slope x."""
    return map_numbers(device, KERNELS, "LeakyRelu", x, negative_slope)


def leaky_relu_backward(device: Device, g: Array, y: Array, negative_slope: float) -> Array:
    """g where y > 0, else negative_slope g, from the result y."""
    return zip_numbers(device, KERNELS, "LeakyReluBackward", g, y, negative_slope)


def elu(device: Device, x: Array, alpha: float) -> Array:
    """x where x > 0, else alpha (e^x - 1)."""
    return map_numbers(device, KERNELS, "Elu", x, alpha)


def elu_backward(device: Device, g: Array, x: Array, alpha: float) -> Array:
    """g where x > 0, else g alpha e^x."""
    return zip_numbers(device, KERNELS, "EluBackward", g, x, alpha)


def exp(device: Device, x: Array) -> Array:
    """e^x."""
    return map_numbers(device, KERNELS, "Exp", x)


def gelu(device: Device, x: Array) -> Array:
    """x normal_cdf(x)."""
    return map_numbers(device, KERNELS, "Gelu", x)


def gelu_backward(device: Device, g: Array, x: Array) -> Array:
    """g (normal_cdf(x) + x density(x))."""
    return zip_numbers(device, KERNELS, "GeluBackward", g, x)


def normal_cdf(device: Device, x: Array) -> Array:
    """Probability that a standard normal number is below x."""
    return map_numbers(device, KERNELS, "NormalCdf", x)


def sigmoid(device: Device, x: Array) -> Array:
    """1 / (1 + e^-x)."""
    return map_numbers(device, KERNELS, "Sigmoid", x)


def sigmoid_backward(device: Device, g: Array, y: Array) -> Array:
    """g y (1 - y), from the result y."""
    return zip_numbers(device, KERNELS, "SigmoidBackward", g, y)


def silu(device: Device, x: Array) -> Array:
    """x sigmoid(x)."""
    return map_numbers(device, KERNELS, "Silu", x)


def silu_backward(device: Device, g: Array, x: Array) -> Array:
    """g s (1 + x (1 - s)),   s = sigmoid(x)."""
    return zip_numbers(device, KERNELS, "SiluBackward", g, x)


def softplus(device: Device, x: Array) -> Array:
    """log(1 + e^x)."""
    return map_numbers(device, KERNELS, "Softplus", x)


def softplus_backward(device: Device, g: Array, x: Array) -> Array:
    """g sigmoid(x)."""
    return zip_numbers(device, KERNELS, "SoftplusBackward", g, x)


def tanh(device: Device, x: Array) -> Array:
    """(e^x - e^-x) / (e^x + e^-x)."""
    return map_numbers(device, KERNELS, "Tanh", x)


def tanh_backward(device: Device, g: Array, y: Array) -> Array:
    """g (1 - y^2), from the result y."""
    return zip_numbers(device, KERNELS, "TanhBackward", g, y)
