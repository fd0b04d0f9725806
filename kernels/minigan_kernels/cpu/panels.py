"""Panels: the windows of a convolution as matrices, a block of outputs at a time.

A panel has one row per output position and one column per (tap, input channel): the values that
the kernel meets there. Panels are small enough to stay in the cache, and are not made at all where
the input already is one (1x1 kernels, kernels as large as the input).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

Array = npt.NDArray[Any]

PANEL_BYTES = 6 << 20  # larger panels leave the cache, smaller ones make small products


class Axis(NamedTuple):
    """Along one axis, tap k of output i reads input i stride + k dilation + start."""

    out: int
    taps: int
    start: int
    stride: int
    dilation: int


def trim(axes: Sequence[Axis], lengths: Sequence[int]) -> tuple[tuple[slice, ...], list[Axis]]:
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


def panels(
    x: Array, axes: Sequence[Axis], groups: int
) -> Iterator[tuple[tuple[slice, ...], Array]]:
    """Blocks of outputs (slices of N,*out) and their panels (groups, rows, taps * channels).

    A panel is valid until the next one is asked for.
    """
    box = (x.shape[0], *(a.out for a in axes))
    width = math.prod(a.taps for a in axes) * x.shape[-1]
    whole = _view(x, axes, groups) if _inside(x, axes) else None
    if whole is not None and whole.flags.c_contiguous:
        yield tuple(map(slice, box)), whole.reshape(groups, math.prod(box), width // groups)
        return
    memory, rows = panel_memory(math.prod(box), width, x.dtype)
    for block in blocks(box, rows):
        seen = windows(x, axes, block, groups)
        panel = memory[: seen.size].reshape(seen.shape)
        np.copyto(panel, seen)
        shape = groups, math.prod(seen.shape[1 : 1 + len(box)]), width // groups
        yield block, panel.reshape(shape)


def panel_memory(rows: int, width: int, dtype: npt.DTypeLike) -> tuple[Array, int]:
    """Memory for at most that many rows, and for how many; fewer if the machine has no more."""
    row_bytes = max(1, width * np.dtype(dtype).itemsize)
    rows = max(1, min(rows, PANEL_BYTES // row_bytes))
    while True:
        try:
            return np.empty(rows * width, dtype), rows
        except MemoryError:
            if rows == 1:
                raise
            rows //= 2


def blocks(box: Sequence[int], size: int) -> Iterator[tuple[slice, ...]]:
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


def windows(x: Array, axes: Sequence[Axis], block: Sequence[slice], groups: int) -> Array:
    """What each tap of each output of a block reads: (groups, n, *out, *taps, channels)."""
    part = [
        a._replace(out=b.stop - b.start, start=a.start + b.start * a.stride)
        for a, b in zip(axes, block[1:], strict=True)
    ]
    return _view(*_region(x[block[0]], part), groups)


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
    padded = np.zeros((x.shape[0], *lengths, x.shape[-1]), x.dtype)
    inner, outer = [], []
    for a, length, n in zip(axes, lengths, x.shape[1:-1], strict=True):
        begin = max(a.start, 0)
        end = max(min(a.start + length, n), begin)  # a block may lie in the padding altogether
        inner.append(slice(begin - a.start, end - a.start))
        outer.append(slice(begin, end))
    padded[:, *inner] = x[:, *outer]
    return padded, [a._replace(start=0) for a in axes]


def _view(x: Array, axes: Sequence[Axis], groups: int) -> Array:
    """x, which holds all that is read, seen as (groups, n, *out, *taps, channels)."""
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
