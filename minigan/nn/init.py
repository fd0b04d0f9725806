"""First values of weights, by family. Each function goes over all layers of a network.

They touch Linear, convolution and Embedding layers, and the scale and shift of norms where it says
so. All draws come from the random stream "init".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minigan.backend import Array
from minigan.nn.conditional import ConditionalBatchNorm2d
from minigan.nn.conv import _Conv, _ConvTransposeNd
from minigan.nn.linear import Embedding, Weighted, normal, uniform
from minigan.nn.module import Module
from minigan.nn.norm import _Running
from minigan.nn.spectral import SpectralNorm
from minigan.tensor import Tensor


def dcgan_(module: Module, std: float = 0.02) -> None:
    """Weights N(0, 0.02), biases 0; scales of norms N(1, 0.02), shifts 0.

    DCGAN, and after it pix2pix, CycleGAN and pix2pixHD.
    """
    _draw(module, lambda layer: normal(layer.weight.shape, std))
    for norm in module.modules():
        if isinstance(norm, _Running) and norm.weight is not None and norm.bias is not None:
            _set(norm.weight, 1 + normal(norm.weight.shape, std))
            _set(norm.bias, np.zeros(norm.bias.shape))


def glorot_uniform_(module: Module, gain: float = 1.0) -> None:
    """Weights U(-b, b), b = gain sqrt(6 / (fan_in + fan_out)); biases 0."""
    _draw(module, lambda layer: uniform(layer.weight.shape, gain * math.sqrt(6 / sum(fans(layer)))))


def glorot_normal_(module: Module, gain: float = 1.0) -> None:
    """Weights N(0, gain sqrt(2 / (fan_in + fan_out))); biases 0."""
    _draw(module, lambda layer: normal(layer.weight.shape, gain * math.sqrt(2 / sum(fans(layer)))))


def he_uniform_(module: Module, gain: float = math.sqrt(2)) -> None:
    """Weights U(-b, b), b = gain sqrt(3 / fan_in); biases 0."""
    _draw(module, lambda layer: uniform(layer.weight.shape, gain * math.sqrt(3 / fans(layer)[0])))


def he_normal_(module: Module, gain: float = math.sqrt(2)) -> None:
    """Weights N(0, gain / sqrt(fan_in)); biases 0."""
    _draw(module, lambda layer: normal(layer.weight.shape, gain / math.sqrt(fans(layer)[0])))


def orthogonal_(module: Module, gain: float = 1.0) -> None:
    """Weights are orthogonal matrices (out, rest) times gain; biases 0 (BigGAN, SAGAN)."""

    def matrix(layer: Weighted) -> Array:
        shape = layer.weight.shape
        rows, columns = shape[0], math.prod(shape[1:])
        q, r = np.linalg.qr(normal((max(rows, columns), min(rows, columns)), 1.0))
        q = q * np.sign(np.diag(r))  # without this, Q would not be uniform over rotations
        return gain * (q if rows >= columns else q.T).reshape(shape)

    _draw(module, matrix)


def goodfellow_(module: Module, bound: float = 0.05) -> None:
    """Weights U(-bound, bound), biases 0: 0.05 for G, 0.005 for D of the first GAN."""
    _draw(module, lambda layer: uniform(layer.weight.shape, bound))


def wgan_gp_(module: Module) -> None:
    """Weights U(-b, b), b = sqrt(3) sqrt(4 / (fan_in + fan_out)), biases 0; for Linear 2, not 4.

    The WGAN-GP code's "He init" is this mean of both fans; a stride s divides fan_out by s^2, or
    fan_in if the convolution is transposed.
    """

    def weight(layer: Weighted) -> Array:
        fan_in, fan_out = fans(layer)
        area = math.prod(_strides(layer))
        if isinstance(layer, _ConvTransposeNd):
            fan_in /= area
        else:
            fan_out /= area
        square = 4 if isinstance(layer, _Conv) else 2
        return uniform(layer.weight.shape, math.sqrt(3 * square / (fan_in + fan_out)))

    _draw(module, weight)


def sngan_(module: Module) -> None:
    """Glorot uniform, times sqrt(2) for kernels larger than 1; biases 0; norms 1 and 0."""

    def weight(layer: Weighted) -> Array:
        gain = math.sqrt(2) if math.prod(layer.weight.shape[2:]) > 1 else 1.0
        return uniform(layer.weight.shape, gain * math.sqrt(6 / sum(fans(layer))))

    _draw(module, weight)


def spade_(module: Module, gain: float = 0.02) -> None:
    """Weights N(0, 0.02 sqrt(2 / (fan_in + fan_out))), biases 0; scales of norms N(1, 0.02)."""
    dcgan_(module, 0.02)
    glorot_normal_(module, gain)


# Parts -----------------------------------------------------------------------------------------


def fans(layer: Weighted) -> tuple[float, float]:
    """Return (fan_in, fan_out): inputs of one output, and outputs of one input, stride 1.

    The axes of channels count with groups, so fan_in = in/groups * kernel size.
    """
    weight = layer.weight
    area = math.prod(weight.shape[2:])
    if isinstance(layer, Embedding):
        return float(weight.shape[0]), float(weight.shape[1])
    if isinstance(layer, _ConvTransposeNd):  # weight (in, out/groups, *k)
        return float(weight.shape[0] // layer.groups * area), float(weight.shape[1] * area)
    groups = layer.groups if isinstance(layer, _Conv) else 1
    return float(weight.shape[1] * area), float(weight.shape[0] // groups * area)


def _draw(module: Module, weight: Callable[[Weighted], Array]) -> None:
    """Give every weighted layer a new weight and a zero bias; spectral norms start again.

    The tables of conditional batch norm are scales and shifts: they keep their ones and zeros.
    """
    norms = [m for m in module.modules() if isinstance(m, ConditionalBatchNorm2d)]
    tables = {id(table) for norm in norms for table in (norm.gamma, norm.beta)}
    for layer in module.modules():
        if not isinstance(layer, Weighted) or id(layer) in tables:
            continue
        _set(layer.weight, weight(layer))
        if layer.bias is not None:
            _set(layer.bias, np.zeros(layer.bias.shape))
        if isinstance(layer.sn, SpectralNorm):
            layer.sn.restart(layer.weight)


def _set(t: Tensor, value: Array) -> None:
    t.data[...] = value  # in place: dtype and order in memory stay
    t.bump()


def _strides(layer: Weighted) -> tuple[int, ...]:
    stride = getattr(layer, "stride", 1)
    axes = layer.weight.ndim - 2
    return (stride,) * axes if isinstance(stride, int) else stride
