"""One number per channel, added; and its gradient, a sum over everything but channels.

Memory is a number of *lines* of equal width. Channels-first a line is a plane of one channel, and
its bias is one number for all lanes. Channels-last a line is a pixel, and its bias is a row of C
numbers. Where C is no multiple of 16, lcm(C, 16) / C pixels are taken as one line with the bias
repeated, so that no lane is wasted on images with 1 or 3 channels.

Sums have a fixed order: a task adds up its lines in float32 in groups of `GROUP`, the groups in
float64, and NumPy the tasks. Small arrays and float64 are served by the definitions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu import vectormath
from minigan_kernels.cpu.flat import CHUNK, SMALL, in_order_of, least, like, put, take
from minigan_kernels.cpu.parallel import arg, kernel, part, real, run
from minigan_kernels.cpu.scratch import scratch
from minigan_kernels.cpu.simd import (
    LANES,
    fma,
    load,
    load_f32,
    spread,
    store_f64,
    store_f64s,
    total,
    where,
    widen,
)
from minigan_kernels.reference import activation as reference

Array = npt.NDArray[Any]

GROUP = 64  # vectors that are added up in float32
BENT, TANH, SIGMOID = 0, 1, 2  # activations as the kernels know them

_tanh, _sigmoid = vectormath.tanh, vectormath.sigmoid


def add_bias(y: Array, bias: Array) -> None:
    """y += bias, per channel, in place."""
    lines = None if y.size < SMALL else _lines(y, False)
    if lines is None:
        y += bias.reshape(1, -1, *[1] * (y.ndim - 2))
        return
    shift = lines.spread_out(bias)
    run(_shift_and_bend, lines.tasks, y, y, *lines.sizes, shift, 0, 0, 1, BENT, 1.0, 1.0, -math.inf)


def channel_sum(g: Array) -> Array:
    """Sum over all axes but channels, (C,)."""
    lines = None if g.size < SMALL else _lines(g, False)
    if lines is None:
        # Summed within each sample first: shorter sums round less.
        return np.asarray(g.sum(axis=tuple(range(2, g.ndim))).sum(axis=0))
    with scratch() as space:
        sums = space.array(lines.sums, np.float64)
        run(_sum, lines.tasks, g, *lines.sizes, sums)
        return lines.finish(sums).astype(np.float32)


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
    x = x if x.size < SMALL else _in_lines(x)
    lines = None if x.size < SMALL else _lines(x, noise is not None)
    if lines is None:
        return reference.bias_act(x, bias, noise, noise_strength, activation, slope, gain)
    y = like(x)
    how = _how(activation, slope, gain)
    shift = lines.spread_out(np.zeros(x.shape[1], np.float32) if bias is None else bias)
    grain, strength, period = _noise(lines, noise, noise_strength)
    run(_shift_and_bend, lines.tasks, x, y, *lines.sizes, shift, grain, strength, period, *how)
    return y


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
    y = y if y.size < SMALL else _in_lines(y)
    lines = None if y.size < SMALL else _lines(y, noise is not None)
    if lines is None:
        options = (activation, slope, gain, needs)
        return reference.bias_act_backward(g, y, noise, noise_strength, *options)
    dx = like(y)
    how = _how(activation, slope, gain)
    grain, _, period = _noise(lines, noise, noise_strength)
    with scratch() as space:
        sums, dots = (space.array(lines.sums, np.float64) for _ in range(2))
        arrays = (in_order_of(y, g), y, dx)
        run(_unbend, lines.tasks, *arrays, *lines.sizes, grain, period, sums, dots, *how)
        dbias = lines.finish(sums).astype(np.float32) if needs[1] else None
        dstrength = lines.finish(dots) if noise is not None and needs[3] else None
    dnoise = None
    if dstrength is not None and noise_strength is not None:
        one = noise_strength.size == 1
        dstrength = (dstrength.sum(keepdims=True) if one else dstrength).astype(np.float32)
    if noise is not None and noise_strength is not None and needs[2]:
        each = dx * noise_strength.reshape(1, -1, *[1] * (g.ndim - 2))
        dnoise = each.sum(axis=(0, 1) if noise.shape[0] == 1 else (1,), keepdims=True)
    return dx if needs[0] else None, dbias, dnoise, dstrength


def _how(activation: str, slope: float, gain: float) -> tuple[int, float, float, float]:
    """(kind, factor below 0, factor above 0 or gain, least value) of an activation."""
    if activation in ("tanh", "sigmoid"):
        return (TANH if activation == "tanh" else SIGMOID), 0.0, float(gain), -math.inf
    low = {"linear": 1.0, "relu": 0.0}.get(activation, slope) * gain
    return BENT, float(low), float(gain), 0.0 if low == 0 else -math.inf


def _noise(
    lines: _Lines, noise: Array | None, strength: Array | None
) -> tuple[Array | int, Array | int, int]:
    """Contiguous noise, its strength in the form of the bias, and after how much it repeats."""
    if noise is None or strength is None:
        return 0, 0, 1
    full = np.broadcast_to(strength, (lines.channels,))
    return np.ascontiguousarray(noise, np.float32), lines.spread_out(full), noise.size


# Lines -----------------------------------------------------------------------------------------


class _Lines:
    """How an array of (N,C,*spatial) falls into lines.

    Attributes
    ----------
    sizes : numbers in all, width of a line, lines of a task, channels, whether channels lie last.
    whole : width of a line in whole vectors.
    sums : shape of the partial sums.
    """

    def __init__(self, x: Array, last: bool, foldable: bool) -> None:
        self.channels = c = x.shape[1]
        self.last = last
        self.repeats = LANES // math.gcd(c, LANES) if last and foldable else 1
        width = c * self.repeats if last else x.size // (x.shape[0] * c)
        count = -(-x.size // width)
        each = max(1, CHUNK // width)
        self.tasks = -(-count // each)
        self.sizes = (x.size, width, each, c, int(last))
        self.whole = -(-width // LANES) * LANES
        self.sums = (self.tasks, self.whole) if last else (count,)

    def spread_out(self, values: Array) -> Array:
        """(C,) numbers as the kernels read them: a line of whole vectors, if channels lie last."""
        if not self.last:
            return np.ascontiguousarray(values, np.float32)
        line = np.zeros(self.whole, np.float32)
        line[: self.sizes[1]] = np.tile(values, self.repeats)
        return line

    def finish(self, sums: Array) -> Array:
        """(C,) from partial sums, float64."""
        if self.last:
            sums = sums.sum(axis=0)[: self.sizes[1]]
        return np.asarray(sums.reshape(-1, self.channels).sum(axis=0))


def _lines(x: Array, noisy: bool) -> _Lines | None:
    """The lines of x, None if it has gaps, another dtype or another order of axes.

    With noise a line is one pixel, as each has its own noise.
    """
    if x.dtype != np.float32:
        return None
    if x.shape[1] > 1 and x.strides[1] == 4:
        return _Lines(x, True, not noisy) if np.moveaxis(x, 1, -1).flags.c_contiguous else None
    return _Lines(x, False, False) if x.flags.c_contiguous else None


def _in_lines(x: Array) -> Array:
    """x, copied to channels-last memory if it has no lines."""
    if x.dtype != np.float32 or _lines(x, False) is not None:
        return x
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


# Kernels ---------------------------------------------------------------------------------------


@part
def _line(args: int, first: int, task: int, j: int) -> Any:
    """Number of the task's line j, where it begins, and how long it is (0: there is none)."""
    n, width, each = arg(args, first), arg(args, first + 1), arg(args, first + 2)
    line = task * each + j
    return line, line * width, least(width, n - line * width)


@kernel
def _shift_and_bend(args: int, task: int, thread: int) -> None:
    x, y, channels, last = arg(args, 0), arg(args, 1), arg(args, 5), arg(args, 6)
    bias, noise, strength, period = arg(args, 7), arg(args, 8), arg(args, 9), arg(args, 10)
    kind, floor = arg(args, 11), spread(np.float32(real(args, 14)))
    low, high = spread(np.float32(real(args, 12))), spread(np.float32(real(args, 13)))
    for j in range(arg(args, 4)):
        line, start, count = _line(args, 2, task, j)
        shift, grain = spread(np.float32(0)), spread(np.float32(0))
        if not last:
            shift = spread(load_f32(bias + 4 * (line % channels)))
        elif noise:
            grain = spread(load_f32(noise + 4 * (line % period)))
        for i in range(0, count, LANES):
            b, left = shift, count - i
            if last:
                b = load(bias + 4 * i)
                if noise:
                    b = fma(load(strength + 4 * i), grain, b)
            elif noise:
                k = spread(load_f32(strength + 4 * (line % channels)))
                place = line // channels * arg(args, 3) % period + i
                b = fma(k, take(noise + 4 * place, left), b)
            z = take(x + 4 * (start + i), left) + b
            if kind == BENT:
                z = where(z < floor, floor, z)  # relu of -infinity is 0, not 0 times infinity
                z = z * where(z > spread(np.float32(0)), high, low)
            elif kind == TANH:
                z = _tanh(z) * high
            else:
                z = _sigmoid(z) * high
            put(y + 4 * (start + i), z, left)


@kernel
def _unbend(args: int, task: int, thread: int) -> None:
    g, y, dx, kind = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 12)
    low, high = spread(np.float32(real(args, 13))), spread(np.float32(real(args, 14)))
    one = spread(np.float32(1))
    for j in range(arg(args, 5)):
        _, start, count = _line(args, 3, task, j)
        for i in range(0, count, LANES):
            at, left = 4 * (start + i), count - i
            v = take(y + at, left)
            if kind == BENT:
                slope = where(v > spread(np.float32(0)), high, low)
            else:
                u = v / high
                slope = (one - u * u if kind == TANH else u * (one - u)) * high
            put(dx + at, take(g + at, left) * slope, left)
    _sum_lines(args, 3, task, dx, arg(args, 10), 0, 1)
    if arg(args, 8):
        _sum_lines(args, 3, task, dx, arg(args, 11), arg(args, 8), arg(args, 9))


@kernel
def _sum(args: int, task: int, thread: int) -> None:
    _sum_lines(args, 1, task, arg(args, 0), arg(args, 6), 0, 1)


@part
def _sum_lines(
    args: int, first: int, task: int, x: int, sums: int, noise: int, period: int
) -> None:
    """Sums of a task's lines of x (times noise), per column, or per line if channels lie first."""
    width, each, channels = arg(args, first + 1), arg(args, first + 2), arg(args, first + 3)
    zero = spread(np.float32(0))
    if arg(args, first + 4):
        for i in range(0, width, LANES):
            group, all_groups = zero, widen(zero)
            for j in range(each):
                line, start, count = _line(args, first, task, j)
                v = take(x + 4 * (start + i), count - i)
                if noise:
                    v = v * spread(load_f32(noise + 4 * (line % period)))
                group = group + v
                if j % GROUP == GROUP - 1:
                    all_groups, group = all_groups + widen(group), zero
            row = -(-width // LANES) * LANES
            store_f64s(sums + 8 * (task * row + i), all_groups + widen(group))
    else:
        for j in range(each):
            line, start, count = _line(args, first, task, j)
            group, all_groups = zero, widen(zero)
            for i in range(0, count, LANES):
                v = take(x + 4 * (start + i), count - i)
                if noise:
                    place = line // channels * width % period + i
                    v = v * take(noise + 4 * place, count - i)
                group = group + v
                if i // LANES % GROUP == GROUP - 1:
                    all_groups, group = all_groups + widen(group), zero
            if count > 0:
                store_f64(sums + 8 * line, total(all_groups + widen(group)))
