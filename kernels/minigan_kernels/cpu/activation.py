"""Activations, each in one pass over memory, by all threads; and their gradients.

Most of the time such a kernel waits for memory, so what counts is to read and write everything
once. Small arrays and float64 are served by NumPy, as `reference.activation` has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu import vectormath
from minigan_kernels.cpu.flat import (
    CHUNK,
    SMALL,
    alike,
    chunks,
    in_order_of,
    is_row,
    least,
    like,
    put,
    take,
)
from minigan_kernels.cpu.parallel import Kernel, arg, kernel, part, real, run
from minigan_kernels.cpu.simd import LANES, fma, spread, where
from minigan_kernels.reference import activation as reference

Array = npt.NDArray[Any]

_power, _tanh_of, _sigmoid_of = vectormath.exp, vectormath.tanh, vectormath.sigmoid
_softplus_of, _cdf_of = vectormath.softplus, vectormath.normal_cdf


def leaky_relu(x: Array, negative_slope: float) -> Array:
    """y = x where x > 0, else negative_slope x."""
    if x.size < SMALL or not is_row(x):
        return reference.leaky_relu(x, x.dtype.type(negative_slope))
    return _map(_leaky_relu, x, float(negative_slope))


def leaky_relu_backward(g: Array, y: Array, negative_slope: float) -> Array:
    """dx = g where y > 0, else negative_slope g."""
    if y.size < SMALL or not is_row(y):
        return reference.leaky_relu_backward(g, y, y.dtype.type(negative_slope))
    return _map_gradient(_leaky_relu_backward, g, y, float(negative_slope))


def exp(x: Array) -> Array:
    """e^x."""
    return np.exp(x) if x.size < SMALL or not is_row(x) else _map(_exp, x)


def tanh(x: Array) -> Array:
    """(e^x - e^-x) / (e^x + e^-x)."""
    return np.tanh(x) if x.size < SMALL or not is_row(x) else _map(_tanh, x)


def tanh_backward(g: Array, y: Array) -> Array:
    """dx = g (1 - y^2), from the result y."""
    if y.size < SMALL or not is_row(y):
        return g - g * y * y
    return _map_gradient(_tanh_backward, g, y)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) as e^min(x,0) / (1 + e^-|x|): no power is above 1, nothing overflows."""
    if x.size < SMALL or not is_row(x):
        power = np.exp(-np.abs(x))
        y: Array = np.where(x >= 0, x.dtype.type(1), power) / (1 + power)
        return y
    return _map(_sigmoid, x)


def sigmoid_backward(g: Array, y: Array) -> Array:
    """dx = g y (1 - y), from the result y."""
    if y.size < SMALL or not is_row(y):
        return g * (y * (1 - y))
    return _map_gradient(_sigmoid_backward, g, y)


def softplus(x: Array) -> Array:
    """log(1 + e^x) as max(x,0) + log(1 + e^-|x|)."""
    if x.size < SMALL or not is_row(x):
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return _map(_softplus, x)


def softplus_backward(g: Array, x: Array) -> Array:
    """dx = g sigmoid(x)."""
    if x.size < SMALL or not is_row(x):
        return g * sigmoid(x)
    return _map_gradient(_softplus_backward, g, x)


def silu(x: Array) -> Array:
    """x sigmoid(x)."""
    return x * sigmoid(x) if x.size < SMALL or not is_row(x) else _map(_silu, x)


def silu_backward(g: Array, x: Array) -> Array:
    """dx = g s (1 + x (1 - s)),   s = sigmoid(x)."""
    if x.size < SMALL or not is_row(x):
        s = sigmoid(x)
        return g * (s * (1 + x * (1 - s)))
    return _map_gradient(_silu_backward, g, x)


def elu(x: Array, alpha: float) -> Array:
    """x where x > 0, else alpha (e^x - 1)."""
    if x.size < SMALL or not is_row(x):
        return np.where(x > 0, x, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)))
    return _map(_elu, x, float(alpha))


def elu_backward(g: Array, x: Array, alpha: float) -> Array:
    """dx = g where x > 0, else g alpha e^x."""
    if x.size < SMALL or not is_row(x):
        return g * np.where(x > 0, 1, x.dtype.type(alpha) * np.exp(np.minimum(x, 0)))
    return _map_gradient(_elu_backward, g, x, float(alpha))


def gelu(x: Array) -> Array:
    """x P(Z < x) for a standard normal Z."""
    return reference.gelu(x) if x.size < SMALL or not is_row(x) else _map(_gelu, x)


def gelu_backward(g: Array, x: Array) -> Array:
    """dx = g (P(Z < x) + x e^(-x^2 / 2) / sqrt(2 pi))."""
    if x.size < SMALL or not is_row(x):
        return reference.gelu_backward(g, x)
    return _map_gradient(_gelu_backward, g, x)


def normal_cdf(x: Array) -> Array:
    """P(Z < x) for a standard normal Z.

    The error is at most two units in the last place of 1, in the lower tail some relative units.
    """
    return reference.normal_cdf(x) if x.size < SMALL or not is_row(x) else _map(_normal_cdf, x)


# One number after another ----------------------------------------------------------------------


def _map(f: Kernel, x: Array, *options: float) -> Array:
    """f(x), in x's memory order."""
    y = like(x)
    run(f, chunks(x.size), x, y, x.size, *options)
    return y


def _map_gradient(f: Kernel, g: Array, y: Array, *options: float) -> Array:
    """f(g, y), in y's memory order: that of the activations, whatever order g comes in."""
    dx = like(y)
    run(f, chunks(y.size), g if alike(g, y) else in_order_of(y, g), y, dx, y.size, *options)
    return dx


@part
def _one() -> Any:
    return spread(np.float32(1))


@part
def _zero() -> Any:
    return spread(np.float32(0))


@part
def _end(task: int, n: int) -> int:
    return least(n, task * CHUNK + CHUNK)


@kernel
def _leaky_relu(args: int, task: int, thread: int) -> None:
    x, y, n, slope = arg(args, 0), arg(args, 1), arg(args, 2), np.float32(real(args, 3))
    low, zero = spread(slope), _zero()
    for i in range(task * CHUNK, _end(task, n), LANES):
        v = take(x + 4 * i, n - i)
        if slope:
            put(y + 4 * i, where(v > zero, v, v * low), n - i)
        else:  # 0 times infinity would be NaN
            put(y + 4 * i, where(v <= zero, zero, v), n - i)


@kernel
def _leaky_relu_backward(args: int, task: int, thread: int) -> None:
    g, y, dx, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    slope = np.float32(real(args, 4))
    low, zero = spread(slope), _zero()
    for i in range(task * CHUNK, _end(task, n), LANES):
        d, below = take(g + 4 * i, n - i), take(y + 4 * i, n - i) <= zero
        if slope:
            put(dx + 4 * i, where(below, d * low, d), n - i)
        else:
            put(dx + 4 * i, where(below, zero, d), n - i)


@kernel
def _exp(args: int, task: int, thread: int) -> None:
    x, y, n = arg(args, 0), arg(args, 1), arg(args, 2)
    for i in range(task * CHUNK, _end(task, n), LANES):
        put(y + 4 * i, _power(take(x + 4 * i, n - i)), n - i)


@kernel
def _tanh(args: int, task: int, thread: int) -> None:
    x, y, n = arg(args, 0), arg(args, 1), arg(args, 2)
    for i in range(task * CHUNK, _end(task, n), LANES):
        put(y + 4 * i, _tanh_of(take(x + 4 * i, n - i)), n - i)


@kernel
def _tanh_backward(args: int, task: int, thread: int) -> None:
    g, y, dx, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    for i in range(task * CHUNK, _end(task, n), LANES):
        d, v = take(g + 4 * i, n - i), take(y + 4 * i, n - i)
        put(dx + 4 * i, d - d * v * v, n - i)


@kernel
def _sigmoid(args: int, task: int, thread: int) -> None:
    x, y, n = arg(args, 0), arg(args, 1), arg(args, 2)
    for i in range(task * CHUNK, _end(task, n), LANES):
        put(y + 4 * i, _sigmoid_of(take(x + 4 * i, n - i)), n - i)


@kernel
def _sigmoid_backward(args: int, task: int, thread: int) -> None:
    g, y, dx, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    for i in range(task * CHUNK, _end(task, n), LANES):
        v = take(y + 4 * i, n - i)
        put(dx + 4 * i, take(g + 4 * i, n - i) * (v * (_one() - v)), n - i)


@kernel
def _softplus(args: int, task: int, thread: int) -> None:
    x, y, n = arg(args, 0), arg(args, 1), arg(args, 2)
    for i in range(task * CHUNK, _end(task, n), LANES):
        put(y + 4 * i, _softplus_of(take(x + 4 * i, n - i)), n - i)


@kernel
def _softplus_backward(args: int, task: int, thread: int) -> None:
    g, x, dx, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    for i in range(task * CHUNK, _end(task, n), LANES):
        s = _sigmoid_of(take(x + 4 * i, n - i))
        put(dx + 4 * i, take(g + 4 * i, n - i) * s, n - i)


@kernel
def _silu(args: int, task: int, thread: int) -> None:
    x, y, n = arg(args, 0), arg(args, 1), arg(args, 2)
    for i in range(task * CHUNK, _end(task, n), LANES):
        v = take(x + 4 * i, n - i)
        put(y + 4 * i, v * _sigmoid_of(v), n - i)


@kernel
def _silu_backward(args: int, task: int, thread: int) -> None:
    g, x, dx, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    for i in range(task * CHUNK, _end(task, n), LANES):
        v = take(x + 4 * i, n - i)
        s = _sigmoid_of(v)
        slope = s * fma(v, _one() - s, _one())
        put(dx + 4 * i, take(g + 4 * i, n - i) * slope, n - i)


@kernel
def _elu(args: int, task: int, thread: int) -> None:
    x, y, n, alpha = arg(args, 0), arg(args, 1), arg(args, 2), spread(np.float32(real(args, 3)))
    for i in range(task * CHUNK, _end(task, n), LANES):
        v = take(x + 4 * i, n - i)
        put(y + 4 * i, where(v > _zero(), v, alpha * vectormath.expm1(v)), n - i)


@kernel
def _elu_backward(args: int, task: int, thread: int) -> None:
    g, x, dx, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    alpha = spread(np.float32(real(args, 4)))
    for i in range(task * CHUNK, _end(task, n), LANES):
        d, v = take(g + 4 * i, n - i), take(x + 4 * i, n - i)
        put(dx + 4 * i, where(v > _zero(), d, d * (alpha * _power(v))), n - i)


@kernel
def _normal_cdf(args: int, task: int, thread: int) -> None:
    x, y, n = arg(args, 0), arg(args, 1), arg(args, 2)
    for i in range(task * CHUNK, _end(task, n), LANES):
        put(y + 4 * i, _cdf_of(take(x + 4 * i, n - i)), n - i)


@kernel
def _gelu(args: int, task: int, thread: int) -> None:
    x, y, n = arg(args, 0), arg(args, 1), arg(args, 2)
    for i in range(task * CHUNK, _end(task, n), LANES):
        v = take(x + 4 * i, n - i)
        put(y + 4 * i, v * _cdf_of(v), n - i)


@kernel
def _gelu_backward(args: int, task: int, thread: int) -> None:
    g, x, dx, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    for i in range(task * CHUNK, _end(task, n), LANES):
        v = take(x + 4 * i, n - i)
        below, density = vectormath.normal(v)
        put(dx + 4 * i, take(g + 4 * i, n - i) * fma(v, density, below), n - i)
