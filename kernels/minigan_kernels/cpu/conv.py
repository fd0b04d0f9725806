"""Convolutions as matrix products over panels of gathered windows; channels-last in memory.

A panel is a matrix with one row per output position and one column per (tap, input channel): the
values that the kernel meets there. The output rows are panel @ weight, the weight gradient is
panel^T @ g. Panels are made a block at a time, so that they stay in the cache, and not at all
where the input already is one (1x1 kernels, kernels as large as the input).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from minigan_kernels.reference.conv import conv_length, conv_transpose_length

Array = npt.NDArray[Any]

PANEL_BYTES = 6 << 20  # larger panels leave the cache, smaller ones make small products
STRIP_BYTES = 1 << 18  # what is added to tap by tap: part of the second-level cache
THIN = 4  # this many times fewer output channels than input channels: transpose by taps
NONE = slice(0, 0)


class Axis(NamedTuple):
    """Along one axis, tap k of output i reads input i stride + k dilation + start."""

    out: int
    taps: int
    start: int
    stride: int
    dilation: int


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
    used, axes = _trim(axes, source.shape[1:-1])
    shape = groups, g.shape[1] // groups, *(a.taps for a in axes), x.shape[1] // groups
    dw = np.zeros((groups, shape[1], *kernel_size, shape[-1]), x.dtype)
    total = np.zeros((groups, shape[1], math.prod(shape[2:])), x.dtype)
    part = np.empty_like(total)
    for block, panel in _panels(source, axes, groups) if total.size else ():
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
    used, axes = _trim(axes, y.shape[1:-2])
    taps = [a.taps for a in axes]
    width = math.prod(taps) * outputs
    inputs = _grouped(x, groups)
    matrix = np.moveaxis(weight[:, :, :, *used], (2, 1), (1, -1))  # groups, in, *k, out
    matrix = matrix.reshape(groups, weight.shape[2], width)
    # Few channels one by one: then NumPy's innermost loop runs along the image.
    strips = [slice(o, o + 1) for o in range(outputs)] if outputs <= 4 else [slice(None)]
    y[...] = 0
    for block in _blocks(x.shape[:-1], PANEL_BYTES // max(1, groups * width * x.itemsize)):
        rows = np.moveaxis(inputs[block], -2, 0)
        size = math.prod(rows.shape[1:-1])
        panel = rows.reshape(groups, size, rows.shape[-1]) @ matrix
        panel = np.moveaxis(panel.reshape(*rows.shape[:-1], *taps, outputs), 0, -2)
        for tap in np.ndindex(*taps):
            pairs = map(_meet, axes, tap, block[1:], y.shape[1:-2])
            given, places = zip(*pairs, strict=True)
            total, part = y[block[0], *places], panel[:, *given, *tap]
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
    used, axes = _trim(axes, x.shape[1:-1])
    if not all(a.taps for a in axes):
        y[...] = 0
        return
    if groups > 1 and x.shape[-1] == groups:
        _depthwise(x, weight[:, :, 0][:, :, *used], axes, y)
        return
    matrix = _matrix(weight[:, :, :, *used])
    for block, panel in _panels(x, axes, groups):
        target = y[block]
        if groups == 1 and target.flags.c_contiguous:
            np.matmul(panel[0], matrix[0], out=target.reshape(panel.shape[1], outputs))
        else:
            product = (panel @ matrix).reshape(groups, *target.shape[:-2], outputs)
            target[...] = np.moveaxis(product, 0, -2)


def _depthwise(x: Array, weight: Array, axes: Sequence[Axis], y: Array) -> None:
    """The case of one input channel per group: matrices would be vectors. Adds tap by tap."""
    everywhere = (slice(None),) * (y.ndim - 2)
    for block in _blocks(y.shape[:-2], STRIP_BYTES // (math.prod(y.shape[-2:]) * y.itemsize)):
        part = [_block_axis(a, b) for a, b in zip(axes, block[1:], strict=True)]
        windows = np.moveaxis(_windows(*_region(x[block[0]], part), y.shape[-2]), 0, -2)
        total = y[block]
        product = np.empty_like(total)
        for tap in np.ndindex(*weight.shape[2:]):
            first = not any(tap)
            seen = windows[*everywhere, *tap]
            np.multiply(seen, weight[:, :, *tap], out=total if first else product)
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


def _trim(axes: Sequence[Axis], lengths: Sequence[int]) -> tuple[tuple[slice, ...], list[Axis]]:
    """Leave out the first and last taps that meet only padding, at every output."""
    used, trimmed = [], []
    for axis, n in zip(axes, lengths, strict=True):
        out, taps, start, s, d = axis
        reach = range(start, start + out * s, s)
        meets = [k for k in range(taps) if any(0 <= i + k * d < n for i in reach)]
        first, last = (meets[0], meets[-1] + 1) if meets else (0, 0)
        used.append(slice(first, last))
        trimmed.append(Axis(out, last - first, start + first * d, s, d))
    return tuple(used), trimmed


def _panels(
    x: Array, axes: Sequence[Axis], groups: int
) -> Iterator[tuple[tuple[slice, ...], Array]]:
    """Blocks of outputs (slices of N,*out) and their panels (groups, rows, taps * channels).

    A panel is valid until the next one is asked for.
    """
    box = (x.shape[0], *(a.out for a in axes))
    width = math.prod(a.taps for a in axes) * x.shape[-1]
    whole = _windows(x, axes, groups) if _inside(x, axes) else None
    if whole is not None and whole.flags.c_contiguous:
        yield tuple(map(slice, box)), whole.reshape(groups, math.prod(box), width // groups)
        return
    rows = max(1, PANEL_BYTES // max(1, width * x.itemsize))
    memory, rows = _allocate(min(rows, math.prod(box)), width, x.dtype)
    for block in _blocks(box, rows):
        part = [_block_axis(a, b) for a, b in zip(axes, block[1:], strict=True)]
        windows = _windows(*_region(x[block[0]], part), groups)
        panel = memory[: windows.size].reshape(windows.shape)
        np.copyto(panel, windows)
        shape = groups, math.prod(windows.shape[1 : 1 + len(box)]), width // groups
        yield block, panel.reshape(shape)


def _allocate(rows: int, width: int, dtype: Any) -> tuple[Array, int]:
    """Memory for that many panel rows, or half as many, ... if there is too little."""
    while True:
        try:
            return np.empty(rows * width, dtype), rows
        except MemoryError:
            if rows <= 1:
                raise
            rows //= 2


def _blocks(box: Sequence[int], size: int) -> Iterator[tuple[slice, ...]]:
    """Cut a box into blocks of at most `size` elements, along its outer axes first."""
    steps: list[int] = []
    for n in reversed(box):
        most = max(1, min(n, size // math.prod(steps)))
        pieces = max(1, -(-n // most))
        steps.insert(0, max(1, -(-n // pieces)))  # pieces of nearly equal length
    cuts = [
        [slice(i, min(i + step, n)) for i in range(0, n, step)]
        for n, step in zip(box, steps, strict=True)
    ]
    return itertools.product(*cuts)


def _block_axis(axis: Axis, block: slice) -> Axis:
    return axis._replace(out=block.stop - block.start, start=axis.start + block.start * axis.stride)


def _last_read(axis: Axis) -> int:
    return axis.start + (axis.out - 1) * axis.stride + (axis.taps - 1) * axis.dilation


def _inside(x: Array, axes: Sequence[Axis]) -> bool:
    """Whether no window reaches into the padding."""
    return all(a.start >= 0 and _last_read(a) < n for a, n in zip(axes, x.shape[1:-1], strict=True))


def _region(x: Array, axes: Sequence[Axis]) -> tuple[Array, list[Axis]]:
    """The part of x that windows read, with the zeros around it, and the axes relative to it."""
    if _inside(x, axes) and x.strides[-1] == x.itemsize:
        return x, list(axes)
    lengths = [_last_read(a) - a.start + 1 for a in axes]
    region = np.zeros((x.shape[0], *lengths, x.shape[-1]), x.dtype)
    inner, outer = [], []
    for a, length, n in zip(axes, lengths, x.shape[1:-1], strict=True):
        begin = max(a.start, 0)
        end = max(min(a.start + length, n), begin)  # a block may lie in the padding altogether
        inner.append(slice(begin - a.start, end - a.start))
        outer.append(slice(begin, end))
    region[:, *inner] = x[:, *outer]
    return region, [a._replace(start=0) for a in axes]


def _windows(x: Array, axes: Sequence[Axis], groups: int) -> Array:
    """View of x as (groups, N, *out, *taps, channels of a group): what each tap of each output
    reads."""
    first, *steps, channel = x.strides
    origin = x[:, *(slice(a.start, None) for a in axes)]
    per_group = x.shape[-1] // groups
    shape = groups, x.shape[0], *(a.out for a in axes), *(a.taps for a in axes), per_group
    strides = (
        per_group * channel,
        first,
        *(a.stride * step for a, step in zip(axes, steps, strict=True)),
        *(a.dilation * step for a, step in zip(axes, steps, strict=True)),
        channel,
    )
    return as_strided(origin, shape, strides, writeable=False)


def _last(x: Array) -> Array:
    """N,C,*S seen as N,*S,C."""
    return np.moveaxis(x, 1, -1)


def _grouped(x: Array, groups: int) -> Array:
    """The last axis (channels) of x as two: groups, channels of a group."""
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def _split(weight: Array, groups: int) -> Array:
    """The first axis (channels) of a weight as two: groups, channels of a group."""
    return weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])

