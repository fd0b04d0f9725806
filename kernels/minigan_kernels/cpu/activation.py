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

_jit = numba.njit(cache=True, nogil=True, error_model="numpy")


# Element by element ----------------------------------------------------------------------------


def leaky_relu(x: Array, negative_slope: float) -> Array:
    """y = x where x > 0, else negative_slope x."""
    if negative_slope == 0:
        return np.maximum(x, 0)  # 0 times infinity would be NaN
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


def normal_cdf(x: Array) -> Array:
    """erfc(-x / sqrt 2) / 2 by the C library's erfc in float64: errors below 1e-15 relative, in
    the lower tail too."""
    order = memory_order(x)
    row = _row(x, order)
    y = np.empty_like(row)
    _normal_cdf(row, y)
    return restore(y.reshape([x.shape[i] for i in order]), order)


def _row(x: Array, order: tuple[int, ...]) -> Array:
    """All elements in memory order. A copy is made only of what lies in another order, and of
    read-only arrays: Numba would compile its kernels once more for them."""
    x = dense(x, order)
    return (x if x.flags.writeable else x.copy()).reshape(-1)


@_jit  # type: ignore[untyped-decorator]
def _leaky(x: Array, slope: Any, y: Array) -> None:
    for i in range(x.size):
        y[i] = x[i] if x[i] > 0 else x[i] * slope


@_jit  # type: ignore[untyped-decorator]
def _leaky_backward(g: Array, y: Array, slope: Any, dx: Array) -> None:
    if slope == 0:
        for i in range(g.size):
            dx[i] = 0 if y[i] <= 0 else g[i]
    else:
        for i in range(g.size):
            dx[i] = g[i] * slope if y[i] <= 0 else g[i]


@_jit  # type: ignore[untyped-decorator]
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
    rows = _blocks(source)
    shift, strength, grain = _per_channel(x, bias), *_noise(x, noise, noise_strength)
    y = np.empty_like(rows)
    piecewise = activation in ("linear", "relu", "lrelu")
    low = {"linear": 1.0, "relu": 0.0}.get(activation, slope) if piecewise else 1.0
    high = gain if piecewise else 1.0
    real = x.dtype.type
    _shift_and_scale(rows, shift, grain, strength, real(low * high), real(high), y)
    if not piecewise:
        _saturate(activation, y)
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
    source = np.ascontiguousarray(np.moveaxis(g, 1, -1)[:, None] if last else g[..., None])
    rows, g_rows = _blocks(out), _blocks(source)
    if activation in ("tanh", "sigmoid"):
        u = rows / g.dtype.type(gain)
        g_rows = g_rows * (1 - u * u if activation == "tanh" else u * (1 - u))
    low = {"relu": 0.0, "lrelu": slope}.get(activation, 1.0)
    strength, grain = _noise(y, noise, noise_strength)
    dx = np.empty_like(rows)
    sums, dots = np.zeros((2, y.shape[1]))
    real = g.dtype.type
    _mask_and_sum(g_rows, rows, grain, real(low * gain), real(gain), dx, sums, dots)
    result = from_planes(dx.reshape(out.shape), last)
    dnoise = dstrength = None
    if noise is not None and noise_strength is not None:
        if needs[2]:
            dnoise = (result * strength.reshape(1, -1, *[1] * (g.ndim - 2))).sum(1, keepdims=True)
            dnoise = dnoise.sum(0, keepdims=True) if noise.shape[0] == 1 else dnoise
        if needs[3]:
            dots = dots.sum(keepdims=True) if noise_strength.size == 1 else dots
            dstrength = dots.astype(g.dtype)
    dbias = sums.astype(g.dtype) if needs[1] else None
    return result if needs[0] else None, dbias, dnoise, dstrength


def _blocks(x: Array) -> Array:
    """(N, C, *spatial, 1) or (N, 1, *spatial, C) with one spatial axis."""
    shape = (x.shape[0], x.shape[1], prod(x.shape[2:-1]), x.shape[-1])
    return (x if x.flags.writeable else x.copy()).reshape(shape)


def _per_channel(x: Array, values: Array | None) -> Array:
    """(C,) numbers, zeros if there are none."""
    full = np.zeros(x.shape[1], x.dtype)
    if values is not None:
        full[:] = values
    return full


def _noise(x: Array, noise: Array | None, strength: Array | None) -> tuple[Array, Array]:
    """strength (C,) and noise (N or 1, spatial); noise of size (1, 0) means none."""
    if noise is None or strength is None:
        return np.zeros(x.shape[1], x.dtype), np.zeros((1, 0), x.dtype)
    return _per_channel(x, strength), np.array(noise, x.dtype, order="C").reshape(
        noise.shape[0], -1
    )


def _saturate(activation: str, z: Array) -> None:
    """tanh or sigmoid in place; sigmoid(z) = (1 + tanh(z / 2)) / 2."""
    if activation == "sigmoid":
        z *= 0.5
    np.tanh(z, out=z)
    if activation == "sigmoid":
        z += 1
        z *= 0.5


@_jit  # type: ignore[untyped-decorator]
def _shift_and_scale(
    x: Array, bias: Array, noise: Array, strength: Array, low: Any, high: Any, y: Array
) -> None:
    """z = x + bias + strength noise; y = high z where z > 0, else low z. x (N,C,S,1), (N,1,S,C)."""
    N, O, S, I = x.shape
    noisy = noise.shape[1] > 0
    for n in range(N):
        grain = noise[n if noise.shape[0] > 1 else 0]
        for o in range(O):
            if I == 1:
                line, out, b, k = x[n, o, :, 0], y[n, o, :, 0], bias[o], strength[o]
                for s in range(S):
                    z = line[s] + b
                    if noisy:
                        z += k * grain[s]
                    out[s] = z * high if not z <= 0 else (z * low if low != 0 else low)
                continue
            for s in range(S):
                pixel, target = x[n, o, s], y[n, o, s]
                v = grain[s] if noisy else low * 0
                for i in range(I):
                    z = pixel[i] + bias[i]
                    if noisy:
                        z += strength[i] * v
                    target[i] = z * high if not z <= 0 else (z * low if low != 0 else low)


@_jit  # type: ignore[untyped-decorator]
def _mask_and_sum(
    g: Array, y: Array, noise: Array, low: Any, high: Any, dx: Array, sums: Array, dots: Array
) -> None:
    """dx = high g where y > 0, else low g; per channel the sums of dx and of dx noise."""
    N, O, S, I = y.shape
    noisy = noise.shape[1] > 0
    for n in range(N):
        grain = noise[n if noise.shape[0] > 1 else 0]
        for o in range(O):
            for s in range(S):
                for i in range(I):
                    pass
