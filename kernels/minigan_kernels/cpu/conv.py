"""Convolutions on the CPU: which algorithm computes which.

All three kernels are seen as one convolution between two images, channels last in memory,

    y[n,i,o] = sum over k, c of x[n, i s - p + k d, c] w[o,k,c]

`conv` computes y, `conv_transpose` computes x from y, `conv_weight_grad` computes w. Each algorithm
is a module with these three as forward, transpose and weight_grad; `_algorithm` chooses one by
shapes. They take float32 and two spatial axes; one axis is a picture one pixel high. Everything
else goes to conv_plain.py. Results are N,C,*S views of channels-last memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu import conv_plain, dense, direct, thin, winograd
from minigan_kernels.cpu.machine import simd
from minigan_kernels.cpu.pack import channels_last
from minigan_kernels.cpu.scratch import aligned
from minigan_kernels.reference.conv import conv_length, conv_transpose_length

Array = npt.NDArray[Any]
Pair = tuple[int, int]

FEW, LARGE = 64, 3 << 20  # results of all images; numbers in a weight


def conv(
    x: Array,
    weight: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """y[n,o,i] = sum over c, k of x[n, c, i s - p + k d] w[o,c,k]."""
    if not _has_kernels(x, weight, groups):
        return conv_plain.conv(x, weight, stride, padding, dilation, groups)
    if x.ndim == 3:
        y = conv(x[:, :, None], weight[:, :, None], *_flat(stride, padding, dilation), 1)
        return y[:, :, 0]
    options = _pair(stride), _pair(padding), _pair(dilation)
    sizes = map(conv_length, x.shape[2:], weight.shape[2:], *options)
    y = aligned((x.shape[0], *sizes, weight.shape[0]))
    source, taps = channels_last(x), channels_last(weight)
    module = _algorithm("forward", source.shape, taps.shape, y.shape, *options)
    module.forward(source, taps, y, *options)
    return y.transpose(0, 3, 1, 2)


def conv_transpose(
    x: Array,
    weight: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """y[n, o, i s - p + k d] += sum over c of x[n,c,i] w[c,o,k], without multiplying a zero."""
    if not _has_kernels(x, weight, groups):
        options = stride, padding, output_padding, dilation
        return conv_plain.conv_transpose(x, weight, *options, groups)
    if x.ndim == 3:
        s, p, d = _flat(stride, padding, dilation)
        y = conv_transpose(x[:, :, None], weight[:, :, None], s, p, (0, *output_padding), d, 1)
        return y[:, :, 0]
    s, p, d = _pair(stride), _pair(padding), _pair(dilation)
    sizes = map(conv_transpose_length, x.shape[2:], weight.shape[2:], s, p, output_padding, d)
    y = aligned((x.shape[0], *sizes, weight.shape[1]))
    source, taps = channels_last(x), channels_last(weight)
    module = _algorithm("transpose", y.shape, taps.shape, source.shape, s, p, d)
    module.transpose(source, taps, y, s, p, d)
    return y.transpose(0, 3, 1, 2)


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
    if not _has_kernels(x, g, groups):
        return conv_plain.conv_weight_grad(x, g, kernel_size, stride, padding, dilation, groups)
    if x.ndim == 3:
        options = _flat(stride, padding, dilation)
        dw = conv_weight_grad(x[:, :, None], g[:, :, None], (1, *kernel_size), *options, 1)
        return dw[:, :, 0]
    options = _pair(stride), _pair(padding), _pair(dilation)
    dw = aligned((g.shape[1], *kernel_size, x.shape[1]))
    source, seen = channels_last(x), channels_last(g)
    module = _algorithm("weight_grad", source.shape, dw.shape, seen.shape, *options)
    module.weight_grad(source, seen, dw, *options)
    return dw.transpose(0, 3, 1, 2)


def _algorithm(
    operation: str,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    y: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Any:
    """The module for these shapes: x (N,H,W,C), weight (O,KH,KW,C), y (N,Ho,Wo,O)."""
    size, kernel, inputs = (x[1], x[2]), (weight[1], weight[2]), x[3]
    results, outputs = (y[1], y[2]), y[3]
    whole = results == ((1, 1) if kernel != (1, 1) else size)  # there may be more of x than is read
    if whole and dense.takes(size, kernel, stride, padding):
        return dense  # the arrays are matrices as they stand
    if thin.takes(inputs, outputs, kernel, stride, dilation):
        return thin  # few channels do not fill a vector
    places = y[0] * y[1] * y[2]
    if simd() == "amx" and _amx().suits(places, inputs, outputs, kernel, stride, dilation):
        return _amx()  # 2.7 times the peak of the vector units
    if kernel[0] % stride[0] or kernel[1] % stride[1]:
        return direct  # as k3 s2: Winograd would fill the shorter phases with zeros
    if places <= FEW and math.prod(weight) >= LARGE:
        return direct  # transforming the weight would cost more than using it
    if winograd.suits(operation, x, y, weight, stride, dilation):
        return winograd  # fewer multiplications, where the transforms cost less than they save
    return direct


def _amx() -> Any:
    """The module that may only be imported where there is a matrix unit."""
    return import_module("minigan_kernels.cpu.amx")


def _has_kernels(x: Array, other: Array, groups: int) -> bool:
    """Whether the algorithms take such arrays: float32, one or two spatial axes, not empty."""
    single = x.dtype == np.float32 and other.dtype == np.float32
    return single and groups == 1 and x.ndim in (3, 4) and x.size > 0 and other.size > 0


def _pair(option: Sequence[int]) -> Pair:
    return int(option[0]), int(option[1])


def _flat(
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[Pair, Pair, Pair]:
    """Options of one axis as those of a picture one pixel high."""
    return (1, int(stride[0])), (0, int(padding[0])), (1, int(dilation[0]))
