"""Convolution and transposed convolution on the GPU; the formulas stand in mg_conv.cuh.

Layers with many channels are bound by the matrix instructions and those with few by memory. A
table of taps (`conv_taps`) describes each; which kernel computes it (`conv_plan`) depends on the
precision class, the channels and the size:

    conv_wgmma   TF32 on Hopper, from 32 channels on
    conv_tf32    TF32 elsewhere; and float32 accuracy from three TF32 products
    conv_simt    ordinary multiply-adds: float64, and few channels on both sides
    conv_direct  groups of few channels, such as depthwise
    add_taps     few output channels: see `_by_taps`

x is read and y written in channels-last memory. An image holds less than 2^31 numbers. Infinite
numbers in x make NaN or infinity in the float32 class, as differences of them occur.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from minigan_kernels.cuda import conv_plan as plan
from minigan_kernels.cuda import conv_weight
from minigan_kernels.cuda.conv_plan import PLAIN, THIN
from minigan_kernels.cuda.conv_taps import Geometry, conv_geometry, conv_transpose_geometry
from minigan_kernels.cuda.device import Array, Device, type_name
from minigan_kernels.cuda.memory_order import channels_last, to_second
from minigan_kernels.precision import of_convolutions

SOURCES = (PLAIN, plan.TENSOR, plan.WARPGROUP, THIN, *conv_weight.SOURCES)
THREADS = 256
FEW = 4  # channels: too few for a tile
PANEL = 32 << 20  # bytes of products that `_by_taps` keeps at a time: they stay in the L2 cache


def conv(
    device: Device,
    x: Array,
    weight: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """y[n,o,i] = sum over c, k of x[n, c, i s - p + k d] w[o,c,k]."""
    geometry = conv_geometry(
        x.shape[2:], weight.shape[2:], tuple(stride), tuple(padding), tuple(dilation)
    )
    inside, outside = math.prod(geometry.spatial), math.prod(geometry.out)
    thin = max(stride) == 1 and 2 * outside >= inside and _is_thin(weight.shape[0], weight.shape[1])
    layer = _Weight(device, weight, groups, False)
    by = _by_taps if thin and groups == 1 and geometry.weight_taps > 1 else _convolve
    return by(device, channels_last(device, x), layer, geometry)


def conv_transpose(
    device: Device,
    x: Array,
    weight: Array,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """y[n, o, i s - p + k d] += sum over c of x[n,c,i] w[c,o,k], without multiplying a zero."""
    options = (tuple(o) for o in (stride, padding, output_padding, dilation))
    geometry = conv_transpose_geometry(x.shape[2:], weight.shape[2:], *options)
    thin = _is_thin(weight.shape[1], weight.shape[0]) or math.prod(geometry.spatial) == 1
    layer = _Weight(device, weight, groups, True)
    by = _by_taps if thin and groups == 1 and geometry.weight_taps > 1 else _convolve
    return by(device, channels_last(device, x), layer, geometry)


def conv_weight_grad(
    device: Device,
    x: Array,
    g: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """dw[o,c,k] = sum over n, i of g[n,o,i] x[n, c, i s - p + k d]."""
    return conv_weight.weight_grad(device, x, g, kernel_size, stride, padding, dilation, groups)


def _is_thin(k: int, c: int) -> bool:
    return k <= FEW and c >= 4 * FEW


class _Weight:
    """A weight (O, C/groups, *k), or (C, O/groups, *k) of a transposed convolution."""

    def __init__(self, device: Device, weight: Array, groups: int, transposed: bool) -> None:
        self.device, self.array = device, weight
        self.groups, self.transposed = groups, transposed
        self.taps = math.prod(weight.shape[2:])
        inputs, outputs = (0, 1) if transposed else (1, 0)
        self.c = weight.shape[inputs] // (groups if transposed else 1)
        self.k = weight.shape[outputs] // (1 if transposed else groups)

    def packed(self, rounded: bool = False, taps_first: bool = False) -> Array:
        """Numbers in the order output channel, tap, input channel (or tap, output, input channel).

        Rounded to TF32 for kernels that cannot round themselves. The weight itself if it lies so.
        """
        w, axes = self.array, tuple(range(2, self.array.ndim))
        order = (1, *axes, 0) if self.transposed else (0, *axes, 1)
        as_is = not rounded and (not taps_first or self.taps == 1)
        if as_is and not (self.transposed and self.groups > 1):
            if w.transpose(order).flags.c_contiguous:
                return w
        if not w.flags.c_contiguous:
            w = self.device.xp.ascontiguousarray(w)
        # As matrices to be transposed: of a group, input channels x (output channels, taps), or of
        # an output channel, input channels x taps.
        batch = self.groups if self.transposed else self.groups * self.k
        columns = self.taps * (self.k if self.transposed else 1)
        out = self.device.empty((w.size,), w.dtype)
        kind = type_name(w.dtype)
        blocks = batch * -(-self.c // 128) * -(-columns // 32)
        sizes = self.c, columns, self.taps, self.k if taps_first else 0, int(rounded)
        args = (w, out, *map(np.int32, sizes))
        shared = 128 * 33 * w.itemsize
        name = f"pack_weight<{kind}>"
        self.device.launch(PLAIN, name, (blocks,), (THREADS,), *args, shared=shared)
        return out


def _convolve(device: Device, x: Array, weight: _Weight, geometry: Geometry) -> Array:
    """Every phase by the kernel for its size."""
    kind, n = type_name(x.dtype), x.shape[0]
    shape = n, *geometry.out[5 - x.ndim :], weight.k * weight.groups
    y = device.empty(shape, x.dtype)
    if weight.groups > 1 and max(weight.c, weight.k) <= FEW:
        params = plan.params(geometry, n, weight.c, weight.k, weight.groups)
        blocks = -(-n * geometry.positions * shape[-1] // THREADS)
        grid, w = (blocks, len(geometry.phases)), weight.packed()
        tables = _tables(device, geometry)
        name = f"conv_direct<{kind}>"
        device.launch(PLAIN, name, grid, (THREADS,), params, *tables, x, w, y)
        return to_second(y)
    channels = weight.c, weight.k, weight.groups
    how = of_convolutions(), device.loader.architecture
    job = plan.job(geometry, n, *channels, kind, *how)
    _launch(device, job, geometry, x, weight.packed(job.tile.source is plan.WARPGROUP), y)
    return to_second(y)


def _launch(
    device: Device, job: plan.Job, geometry: Geometry, x: Array, packed: Array, y: Array
) -> None:
    """Compute a layer into y, in one go or as the sum of parts."""
    tile, tables = job.tile, _tables(device, geometry)
    parts = y if job.splits == 1 else device.empty((job.splits, *y.shape), y.dtype)
    args = (job.params, *tables, x, packed, parts)
    device.launch(tile.source, tile.instance, job.grid, (tile.threads,), *args, shared=tile.shared)
    if parts is not y:
        grid = (-(-y.size // THREADS),)
        name = f"sum_parts<{type_name(y.dtype)}>"
        counts = y.size, np.int32(job.splits)
        device.launch(PLAIN, name, grid, (THREADS,), parts, y, *counts)


def _by_taps(device: Device, x: Array, weight: _Weight, geometry: Geometry) -> Array:
    """Multiply first, then add up the products tap by tap.

    With few output channels (the last layer of a generator) a tile would be mostly padding. It is
    not with the taps as channels, z[n, i, (t, k)] = sum over c of x[n,i,c] w[k,t,c], and x is read
    once. From a single pixel every product is needed once, but most windows would be padding.
    """
    kind, ones = type_name(x.dtype), (1,) * (x.ndim - 2)
    shape = x.shape[0], *geometry.out[5 - x.ndim :], weight.k
    y = device.empty(shape, x.dtype)
    products = conv_geometry(x.shape[2:], ones, ones, (0,) * len(ones), ones)
    columns = weight.taps * weight.k
    size = math.prod(x.shape[2:]) * columns
    images = max(1, min(PANEL // max(1, size * x.itemsize), 65535))
    results, tables = math.prod(shape[1:]), _tables(device, geometry)
    params = plan.params(geometry, 0, weight.c, weight.k, 1)
    how = kind, of_convolutions(), device.loader.architecture
    packed: dict[bool, Any] = {}
    for first in range(0, shape[0], images):
        part = x[first : first + images]
        job = plan.job(products, part.shape[0], weight.c, columns, 1, *how)
        rounded = job.tile.source is plan.WARPGROUP
        if rounded not in packed:
            packed[rounded] = weight.packed(rounded, taps_first=True)
        z = device.empty((part.shape[0], *x.shape[2:], columns), x.dtype)
        _launch(device, job, products, part, packed[rounded], z)
        grid, args = (-(-results // THREADS), part.shape[0]), (params, *tables, z, y, first)
        device.launch(THIN, f"add_taps<{kind}>", grid, (THREADS,), *args)
    return to_second(y)


@lru_cache(maxsize=256)
def _tables(device: Device, geometry: Geometry) -> tuple[Array | None, Array | None]:
    """Taps and phases in device memory, if they are too many for the arguments of a kernel."""
    if geometry.by_value:
        return None, None
    return device.upload(geometry.taps), device.upload(geometry.phases)
