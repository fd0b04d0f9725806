"""Definitions of convolution, transposed convolution and the gradient of their weight.

The three are one family: with the same weight array and options,

    <conv(x, w), g> = <x, conv_transpose(g, w)> = <w, conv_weight_grad(x, g)>

so each one's gradients are the other two. Any number of spatial axes; one option per axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def conv_length(n: int, k: int, s: int, p: int, d: int) -> int:
    """How often a kernel of k taps, d apart, fits in n + 2p places when it moves s at a time."""
    return (n + 2 * p - d * (k - 1) - 1) // s + 1


def conv_transpose_length(n: int, k: int, s: int, p: int, extra: int, d: int) -> int:
    """The length from which `conv` makes n; `extra` chooses among the s lengths that do."""
    return (n - 1) * s - 2 * p + d * (k - 1) + 1 + extra


def conv(
    x: Array,
    weight: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """y[n,o,i] = sum over c, k of x[n, c, i s - p + k d] w[o,c,k]; x is zero outside its bounds.

    This is cross-correlation: the kernel is not flipped.

    Parameters
    ----------
    x : (N, C, *spatial)
    weight : (O, C/groups, *k); output channel o reads the input channels of its group only.
    """
    kernel = weight.shape[2:]
    out = tuple(map(conv_length, x.shape[2:], kernel, stride, padding, dilation))
    y = np.zeros((*out, x.shape[0], weight.shape[0]), x.dtype)
    source, taps = _positions_first(x), _positions_first(weight)
    for i in np.ndindex(out):
        for k in np.ndindex(kernel):
            j = _source(i, k, x.shape[2:], stride, padding, dilation)
            if j is None:
                continue
            for inputs, outputs in _groups(x.shape[1], weight.shape[0], groups):
                y[i][:, outputs] += source[j][:, inputs] @ taps[k][outputs].T
    return np.moveaxis(y, (-2, -1), (0, 1))


def conv_transpose(
    x: Array,
    weight: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """Interleave s - 1 zeros, then convolve with stride one and the flipped, transposed kernel.

    Each axis is padded by d (k - 1) - p on both sides and by `output_padding` more at its end; a
    negative padding crops. Equal to y[n,o,i s - p + k d] += sum over c of x[n,c,i] w[c,o,k].

    Parameters
    ----------
    x : (N, C, *spatial)
    weight : (C, O/groups, *k)
    """
    axes = len(stride)
    lengths = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    wide = np.zeros((*x.shape[:2], *lengths), x.dtype)
    wide[:, :, *(slice(None, None, s) for s in stride)] = x
    for axis in range(axes):
        before = dilation[axis] * (weight.shape[2 + axis] - 1) - padding[axis]
        wide = _pad(wide, 2 + axis, before, before + output_padding[axis])
    # (C, O/groups, *k) -> (groups, C/groups, O/groups, *k) -> (O, C/groups, *k)
    c, per_group, *kernel = weight.shape
    swapped = weight.reshape(groups, c // groups, per_group, *kernel).swapaxes(1, 2)
    swapped = swapped.reshape(groups * per_group, c // groups, *kernel)
    flipped = np.flip(swapped, tuple(range(2, 2 + axes)))
    return conv(wide, flipped, (1,) * axes, (0,) * axes, dilation, groups)


def conv_weight_grad(
    x: Array,
    g: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """dw[o,c,k] = sum over n, i of g[n,o,i] x[n, c, i s - p + k d].

    Parameters
    ----------
    x : (N, C, *spatial), the input of `conv`.
    g : (N, O, *out), the gradient at its output.
    """
    dw = np.zeros((*kernel_size, g.shape[1], x.shape[1] // groups), x.dtype)
    source, seen = _positions_first(x), _positions_first(g)
    for k in np.ndindex(*kernel_size):
        for i in np.ndindex(g.shape[2:]):
            j = _source(i, k, x.shape[2:], stride, padding, dilation)
            if j is None:
                continue
            for inputs, outputs in _groups(x.shape[1], g.shape[1], groups):
                dw[k][outputs] += seen[i][:, outputs].T @ source[j][:, inputs]
    return np.moveaxis(dw, (-2, -1), (0, 1))


def _positions_first(x: Array) -> Array:
    """(A, B, *positions) as (*positions, A, B), so that x[i] is the matrix at position i."""
    return np.moveaxis(x, (0, 1), (-2, -1))


def _source(
    i: Sequence[int],
    k: Sequence[int],
    lengths: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...] | None:
    """The input position that tap k of output position i reads; None in the padding."""
    j = tuple(
        a * s - p + b * d for a, b, s, p, d in zip(i, k, stride, padding, dilation, strict=True)
    )
    return j if all(0 <= a < n for a, n in zip(j, lengths, strict=True)) else None


def _groups(inputs: int, outputs: int, groups: int) -> list[tuple[slice, slice]]:
    """Input and output channels of each group."""
    a, b = inputs // groups, outputs // groups
    return [(slice(q * a, q * a + a), slice(q * b, q * b + b)) for q in range(groups)]


def _pad(x: Array, axis: int, before: int, after: int) -> Array:
    """Zeros before and after along one axis; negative numbers crop."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (max(before, 0), max(after, 0))
    x = np.pad(x, widths)
    keep = slice(max(-before, 0), x.shape[axis] - max(-after, 0))
    return x[(slice(None),) * axis + (keep,)]
