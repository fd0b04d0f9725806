"""Convolutions as matrix products in plain NumPy: any dtype, number of axes and groups.

What conv.py has no kernels for comes here; memory is channels-last. The windows of the input are
gathered into panels (see panels.py): one row per output position, one column per tap and input
channel. Then y = panel @ weight, and the weight gradient is panel^T @ g. A transposed convolution
is one such product per phase of the stride.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.panels import Axis, blocks, panel_memory, panels, trim, windows
from minigan_kernels.reference.conv import conv_length, conv_transpose_length

Array = npt.NDArray[Any]

STRIP_BYTES = 1 << 18  # what is added to tap by tap: part of the second-level cache
THIN = 4  # this many times fewer output channels than input channels: transpose by taps
NONE = slice(0, 0)


def conv(
    x: Array,
    weight: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """y[n,o,i] = sum over c, k of x[n, c, i s - p + k d] w[o,c,k]."""
    options = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    axes = [Axis(conv_length(n, k, s, p, d), k, -p, s, d) for n, k, s, p, d in options]
    y = np.empty((x.shape[0], *(a.out for a in axes), weight.shape[0]), x.dtype)
    _gather(_last(x), _split(weight, groups), axes, _grouped(y, groups))
    return np.moveaxis(y, -1, 1)


def conv_transpose(
    x: Array,
    weight: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """y[n, o, i s - p + k d] += sum over c of x[n,c,i] w[c,o,k], without multiplying a zero.

    Either by phases or, where the output has few channels or the input is a single pixel, by taps.
    """
    kernel = weight.shape[2:]
    options = zip(x.shape[2:], kernel, stride, padding, output_padding, dilation, strict=True)
    out = [conv_transpose_length(*option) for option in options]
    y = np.empty((x.shape[0], *out, groups * weight.shape[1]), x.dtype)
    parts = _split(weight, groups).swapaxes(1, 2)  # groups, out, in, *k
    spread = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    axes = [Axis(n, k, -p, s, d) for n, k, s, p, d in spread]
    thin = THIN * parts.shape[1] <= parts.shape[2] or math.prod(x.shape[2:]) == 1
    by = _scatter_taps if thin else _gather_phases
    by(_last(x), parts, axes, _grouped(y, groups))
    return np.moveaxis(y, -1, 1)


def conv_weight_grad(
    x: Array,
    g: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """dw[o,c,k] = sum over n, i of g[n,o,i] x[n, c, i s - p + k d]."""
    options = zip(g.shape[2:], kernel_size, padding, stride, dilation, strict=True)
    axes = [Axis(out, k, -p, s, d) for out, k, p, s, d in options]
    source, seen = _last(x), _grouped(_last(g), groups)
    used, axes = trim(axes, source.shape[1:-1])
    shape = groups, g.shape[1] // groups, *(a.taps for a in axes), x.shape[1] // groups
    dw = np.zeros((groups, shape[1], *kernel_size, shape[-1]), x.dtype)
    total = np.zeros((groups, shape[1], math.prod(shape[2:])), x.dtype)
    part = np.empty_like(total)
    for block, panel in panels(source, axes, groups) if total.size else ():
        rows = np.moveaxis(seen[block], -2, 0).reshape(groups, panel.shape[1], shape[1])
        total += np.matmul(rows.swapaxes(1, 2), panel, out=part)
    dw[:, :, *used] = total.reshape(shape)
    return np.moveaxis(dw.reshape(g.shape[1], *dw.shape[2:]), -1, 1)


def _gather_phases(x: Array, weight: Array, axes: Sequence[Axis], y: Array) -> None:
    """Transposed convolution, phase by phase. Here tap k of input i adds to output
    i stride + k dilation + start.

    Outputs that are a stride apart read the same taps. They form a phase: an ordinary convolution
    with stride one and those taps only, computed by itself into its places of y.
    """
    per_axis = map(_phases, axes, y.shape[1:-2])
    for phases in itertools.product(*per_axis):
        taps, places, gathers = zip(*phases, strict=True)
        _gather(x, weight[:, :, :, *taps], gathers, y[:, *places])


def _phases(axis: Axis, length: int) -> Iterator[tuple[slice, slice, Axis]]:
    """The taps, the outputs and the convolution of each phase along one axis.

    Output o is met by the taps k with (o - start - k d) divisible by s: every s / gcd(s, d)-th
    one, if any, and the inputs that they come from are d / gcd apart, in falling order.
    """
    _, k, start, s, d = axis
    common = math.gcd(s, d)
    for phase in range(s):  # of o - start, modulo s
        first_out = (phase + start) % s
        places = slice(first_out, length, s)
        taps = [t for t in range(k) if t * d % s == phase]
        lowest = taps[-1] if taps else 0  # the last tap reads the lowest input
        backward = slice(lowest, taps[0] - 1 if taps[0] else None, -(s // common)) if taps else NONE
        first_in = (first_out - start - lowest * d) // s
        count = len(range(first_out, length, s))
        yield backward, places, Axis(count, len(taps), first_in, 1, d // common)


def _scatter_taps(x: Array, weight: Array, axes: Sequence[Axis], y: Array) -> None:
    """Transposed convolution: the products of every input with every tap, added tap by tap."""
    groups, outputs = y.shape[-2:]
    used, axes = trim(axes, y.shape[1:-2])
    taps = [a.taps for a in axes]
    width = math.prod(taps) * outputs
    inputs = _grouped(x, groups)
    matrix = np.moveaxis(weight[:, :, :, *used], (2, 1), (1, -1))  # groups, in, *k, out
    matrix = matrix.reshape(groups, weight.shape[2], width)
    # Few channels one by one: then NumPy's innermost loop runs along the image.
    strips = [slice(o, o + 1) for o in range(outputs)] if outputs <= 4 else [slice(None)]
    y[...] = 0
    memory, most = panel_memory(math.prod(x.shape[:-1]), groups * width, x.dtype)
    for block in blocks(x.shape[:-1], most):
        rows = np.moveaxis(inputs[block], -2, 0)  # groups, n, *in, channels
        size = math.prod(rows.shape[1:-1])
        panel = memory[: groups * size * width].reshape(groups, size, width)
        np.matmul(rows.reshape(groups, size, rows.shape[-1]), matrix, out=panel)
        products = np.moveaxis(panel.reshape(*rows.shape[:-1], *taps, outputs), 0, -2)
        for tap in np.ndindex(*taps):
            pairs = map(_meet, axes, tap, block[1:], y.shape[1:-2])
            given, places = zip(*pairs, strict=True)
            total, part = y[block[0], *places], products[:, *given, *tap]
            for strip in strips:
                total[..., strip] += part[..., strip]


def _meet(axis: Axis, tap: int, block: slice, length: int) -> tuple[slice, slice]:
    """Inputs of a block whose tap falls inside the output, and the outputs that it falls on."""
    shift = tap * axis.dilation + axis.start
    first = max(block.start, -(shift // axis.stride))  # the first i with i stride + shift >= 0
    last = max(first, min(block.stop, (length - 1 - shift) // axis.stride + 1))
    given = slice(first - block.start, last - block.start)
    places = slice(first * axis.stride + shift, (last - 1) * axis.stride + shift + 1, axis.stride)
    return (given, places) if last > first else (NONE, NONE)


def _gather(x: Array, weight: Array, axes: Sequence[Axis], y: Array) -> None:
    """Convolve x (N,*S,C) with weight (groups, out, in, *k) into y (N,*out, groups, out)."""
    groups, outputs = y.shape[-2:]
    used, axes = trim(axes, x.shape[1:-1])
    if not all(a.taps for a in axes):
        y[...] = 0
        return
    if groups > 1 and x.shape[-1] == groups:
        _depthwise(x, weight[:, :, 0][:, :, *used], axes, y)
        return
    matrix = _matrix(weight[:, :, :, *used])
    for block, panel in panels(x, axes, groups):
        target = y[block]
        if groups == 1 and target.flags.c_contiguous:
            np.matmul(panel[0], matrix[0], out=target.reshape(panel.shape[1], outputs))
        else:
            product = (panel @ matrix).reshape(groups, *target.shape[:-2], outputs)
            target[...] = np.moveaxis(product, 0, -2)


def _depthwise(x: Array, weight: Array, axes: Sequence[Axis], y: Array) -> None:
    """The case of one input channel per group: matrices would be vectors. Adds tap by tap."""
    everywhere = (slice(None),) * (y.ndim - 2)
    for block in blocks(y.shape[:-2], STRIP_BYTES // (math.prod(y.shape[-2:]) * y.itemsize)):
        seen = np.moveaxis(windows(x, axes, block, y.shape[-2]), 0, -2)
        total = y[block]
        product = np.empty_like(total)
        for tap in np.ndindex(*weight.shape[2:]):
            first = not any(tap)
            factors = seen[*everywhere, *tap], weight[:, :, *tap]
            np.multiply(*factors, out=total if first else product)
            if not first:
                total += product


def _matrix(weight: Array) -> Array:
    """A weight (groups, out, in, *k) as matrices (groups, taps * in, out).

    Written in the order in which the weight lies in memory, as far as BLAS takes it.
    """
    groups, outputs = weight.shape[:2]
    width = math.prod(weight.shape[2:])
    if weight.strides[1] < weight.strides[2]:
        return np.moveaxis(weight, (2, 1), (-2, -1)).reshape(groups, width, outputs)
    return np.moveaxis(weight, 2, -1).reshape(groups, outputs, width).swapaxes(1, 2)


def _last(x: Array) -> Array:
    """N,C,*S seen as N,*S,C."""
    return np.moveaxis(x, 1, -1)


def _grouped(x: Array, groups: int) -> Array:
    """The last axis (channels) of x as two: groups, channels of a group."""
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def _split(weight: Array, groups: int) -> Array:
    """The first axis (channels) of a weight as two: groups, channels of a group."""
    return weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
