"""Activations that gain from one pass over memory; the others are plain NumPy in minigan.ops."""

from __future__ import annotations

import math
from math import prod
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.layout import dense, from_planes, memory_order, planes, restore

Array = npt.NDArray[Any]

SMOOTH = ("tanh", "sigmoid")

_jit = numba.njit(cache=True, nogil=True, error_model="numpy")
# "reassoc" lets the compiler sum in vector lanes; NaN and infinity keep their meaning.
_jit_sums = numba.njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"}
)


# Element by element ----------------------------------------------------------------------------


def leaky_relu(x: Array, negative_slope: float) -> Array:
    """y = x where x > 0, else negative_slope x."""
    order = memory_order(x)
    row = _row(x, order)
    y = np.empty_like(row)
    _leaky(row, x.dtype.type(negative_slope), y)
    return restore(y.reshape([x.shape[i] for i in order]), order)


def leaky_relu_backward(g: Array, y: Array, negative_slope: float) -> Array:
    """dx = g where y > 0, else negative_slope g."""
    order = memory_order(y)
    row = _row(g, order)
    dx = np.empty_like(row)
    _leaky_backward(row, _row(y, order), g.dtype.type(negative_slope), dx)
    return restore(dx.reshape([g.shape[i] for i in order]), order)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) as e^min(x,0) / (1 + e^-|x|): no power is above 1, nothing overflows."""
    order = memory_order(x)
    row = _row(x, order)
    y = _power(row)
    _finish_sigmoid(row, x.dtype.type(1), y)
    return restore(y.reshape([x.shape[i] for i in order]), order)


def softplus(x: Array) -> Array:
    """log(1 + e^x) as max(x,0) + log(1 + e^-|x|)."""
    order = memory_order(x)
    row = _row(x, order)
    y = _power(row)
    np.log1p(y, out=y)
    _finish_softplus(row, y)
    return restore(y.reshape([x.shape[i] for i in order]), order)


def _power(x: Array) -> Array:
    """e^-|x| by NumPy, whose exp is vectorised; a choice by sign is not, hence the two below."""
    y = np.abs(x)
    np.negative(y, out=y)
    return np.exp(y, out=y)


def normal_cdf(x: Array) -> Array:
    """erfc(-x / sqrt 2) / 2 with the C library's erfc in float64, 10 to 20 ns each.

    The error is at most one unit in the last place of 1, and x^2 eps relative in the lower tail.
    """
    order = memory_order(x)
    row = _row(x, order)
    y = np.empty_like(row)
    _normal_cdf(row, y)
    return restore(y.reshape([x.shape[i] for i in order]), order)


def _row(x: Array, order: tuple[int, ...]) -> Array:
    """All elements in memory order, copied only if they lie in another order."""
    return _writable(dense(x, order)).reshape(-1)


def _writable(x: Array) -> Array:
    """Numba would compile its kernels once more for read-only arrays."""
    return x if x.flags.writeable else x.copy()


@_jit
def _leaky(x: Array, slope: Any, y: Array) -> None:
    if slope == 0:  # 0 times infinity would be NaN
        for i in range(x.size):
            y[i] = 0 if x[i] <= 0 else x[i]
    else:
        for i in range(x.size):
            y[i] = x[i] if x[i] > 0 else x[i] * slope


@_jit
def _leaky_backward(g: Array, y: Array, slope: Any, dx: Array) -> None:
    if slope == 0:
        for i in range(g.size):
            dx[i] = 0 if y[i] <= 0 else g[i]
    else:
        for i in range(g.size):
            dx[i] = g[i] * slope if y[i] <= 0 else g[i]


@_jit
def _finish_sigmoid(x: Array, one: Any, y: Array) -> None:
    for i in range(x.size):
        y[i] = (one if x[i] >= 0 else y[i]) / (one + y[i])


@_jit
def _finish_softplus(x: Array, y: Array) -> None:
    for i in range(x.size):
        y[i] = y[i] if x[i] <= 0 else x[i] + y[i]


@_jit
def _normal_cdf(x: Array, y: Array) -> None:
    for i in range(x.size):
        y[i] = 0.5 * math.erfc(-np.float64(x[i]) * math.sqrt(0.5))


# Bias, noise and activation --------------------------------------------------------------------


def bias_act(
    x: Array,
    bias: Array | None,
    noise: Array | None,
    noise_strength: Array | None,
    activation: str,
    slope: float,
    gain: float,
) -> Array:
    """y = act(x + bias + noise_strength noise) gain. See `reference.bias_act`."""
    source, last = planes(x)
    row, real = _writable(source).reshape(-1), x.dtype.type
    y = np.empty_like(row)
    strength, grain = _noise(x, noise, noise_strength)
    shift = _per_channel(x, bias)
    how = _slopes(activation, slope, gain, real)
    _shift_and_bend(row, *_sizes(source), shift, grain, strength, how, y)
    if activation == "tanh":
        np.tanh(y, out=y)
    elif activation == "sigmoid":  # (1 + tanh(z / 2)) / 2
        y *= real(0.5)
        np.tanh(y, out=y)
        y += real(1)
        y *= real(0.5)
    if activation in SMOOTH and gain != 1:
        y *= real(gain)
    return from_planes(y.reshape(source.shape), last)


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
    """dx = g act' gain and its sums. See `reference.bias_act_backward`."""
    out, last = planes(y)
    upstream = np.ascontiguousarray(np.moveaxis(g, 1, -1) if last else g)
    row, g_row, real = _writable(out).reshape(-1), _writable(upstream).reshape(-1), g.dtype.type
    if activation in SMOOTH:
        u = row / real(gain)
        g_row = g_row * ((1 - u * u if activation == "tanh" else u * (1 - u)) * real(gain))
    strength, grain = _noise(y, noise, noise_strength)
    how = _slopes(activation, slope, gain, real)
    dx = np.empty_like(row)
    sums, dots = np.zeros((2, y.shape[1]))
    _mask_and_sum(g_row, row, *_sizes(out), grain, how, dx, sums, dots)
    result = from_planes(dx.reshape(out.shape), last)
    dnoise = dstrength = None
    if noise is not None and needs[2]:
        each = result * strength.reshape(1, -1, *[1] * (g.ndim - 2))
        axes = (0, 1) if noise.shape[0] == 1 else (1,)
        dnoise = each.sum(axis=axes, keepdims=True)
    if noise_strength is not None and needs[3]:
        dots = dots.sum(keepdims=True) if noise_strength.size == 1 else dots
        dstrength = dots.astype(g.dtype)
    dbias = sums.astype(g.dtype) if needs[1] else None
    return result if needs[0] else None, dbias, dnoise, dstrength


def _slopes(activation: str, slope: float, gain: float, real: Any) -> tuple[Any, Any, Any]:
    """Factors below and above 0, and the least value. The smooth activations follow in NumPy."""
    if activation in SMOOTH:
        return real(1), real(1), real(-np.inf)
    low = {"linear": 1.0, "relu": 0.0}.get(activation, slope) * gain
    return real(low), real(gain), real(-np.inf if low else 0)


def _sizes(x: Array) -> tuple[int, int, int]:
    """P, S, W of (N, C, *spatial, 1), where P = N C and W = 1, or of (N, 1, *spatial, C)."""
    return x.shape[0] * x.shape[1], prod(x.shape[2:-1]), x.shape[-1]


def _per_channel(x: Array, values: Array | None) -> Array:
    """(C,) numbers, zeros if there are none."""
    full = np.zeros(x.shape[1], x.dtype)
    if values is not None:
        full[:] = values
    return full


def _noise(x: Array, noise: Array | None, strength: Array | None) -> tuple[Array, Array]:
    """strength (C,) and noise (N or 1, spatial); noise of shape (1, 0) means none."""
    if noise is None:
        return _per_channel(x, None), np.zeros((1, 0), x.dtype)
    grain = np.array(noise, x.dtype, order="C")
    return _per_channel(x, strength), grain.reshape(noise.shape[0], prod(x.shape[2:]))


# The loops: P lines of S numbers of one channel each (channels first), or P blocks of S pixels with
# W channels (channels last).


@_jit
def _bend(z: Any, low: Any, high: Any, floor: Any) -> Any:
    """high z above 0, low z below; relu of -infinity is its floor 0, not 0 times infinity."""
    z = floor if z < floor else z
    return z * (high if z > 0 else low)


@_jit
def _shift_and_bend(
    x: Array, P: int, S: int, W: int, bias: Array, noise: Array, strength: Array, how: Any, y: Array
) -> None:
    """y = bend(x + bias + strength noise)."""
    low, high, floor = how
    C, noisy = bias.size, noise.shape[1] > 0
    for p in range(P):
        line, out = x[p * S * W : (p + 1) * S * W], y[p * S * W : (p + 1) * S * W]
        n = p * W // C if noise.shape[0] > 1 else 0
        if W == 1:
            b, k = bias[p % C], strength[p % C]
            if noisy:
                grain = noise[n]
                for s in range(S):
                    out[s] = _bend(line[s] + b + k * grain[s], low, high, floor)
            else:
                for s in range(S):
                    out[s] = _bend(line[s] + b, low, high, floor)
        else:
            for s in range(S):
                pixel, target = line[s * W : (s + 1) * W], out[s * W : (s + 1) * W]
                if noisy:
                    v = noise[n, s]
                    for i in range(W):
                        target[i] = _bend(pixel[i] + bias[i] + strength[i] * v, low, high, floor)
                else:
                    for i in range(W):
                        target[i] = _bend(pixel[i] + bias[i], low, high, floor)


@_jit_sums
def _mask_and_sum(
    g: Array,
    y: Array,
    P: int,
    S: int,
    W: int,
    noise: Array,
    how: Any,
    dx: Array,
    sums: Array,
    dots: Array,
) -> None:
    """dx = high g where y > 0, else low g; per channel the sums of dx and of dx noise."""
    low, high, _ = how
    C, noisy = sums.size, noise.shape[1] > 0
    for p in range(P):
        line, out = g[p * S * W : (p + 1) * S * W], dx[p * S * W : (p + 1) * S * W]
        signs = y[p * S * W : (p + 1) * S * W]
        grain = noise[p * W // C if noise.shape[0] > 1 else 0]
        if W == 1:
            total, dot = 0.0, 0.0
            for s in range(S):
                d = line[s] * (high if signs[s] > 0 else low)
                out[s] = d
                total += d
            if noisy:
                for s in range(S):
                    dot += out[s] * grain[s]
            sums[p % C] += total
            dots[p % C] += dot
        else:
            for s in range(S):
                pixel, target = line[s * W : (s + 1) * W], out[s * W : (s + 1) * W]
                sign = signs[s * W : (s + 1) * W]
                for i in range(W):
                    d = pixel[i] * (high if sign[i] > 0 else low)
                    target[i] = d
                    sums[i] += d
                if noisy:
                    v = grain[s]
                    for i in range(W):
                        dots[i] += target[i] * v
