"""Convolutions from many channels to a few: first all products, then their sums.

A convolution with few outputs, and a transposed one with few outputs, are the same matrix product
of every pixel with every tap,

    T[q, u, (kh, kw, c)] = sum over o of  x[n, q, u, o]  W[o, (kh, kw, c)]

whose columns, taps times channels, fill the vectors. Each number of the result is the sum of those
that fall on it. A ring of rows of T stays in the cache: the rows that meet one row of the result
are added up first, with whole vectors, and then the columns.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.microkernel import PANEL, PANEL_BYTES
from minigan_kernels.cpu.parallel import arg, kernel, part, run
from minigan_kernels.cpu.scratch import scratch
from minigan_kernels.cpu.simd import BYTES, LANES, load, load_f32, spread, store, store_f32
from minigan_kernels.cpu.threads import threads
from minigan_kernels.cpu.tiles import pack_panels, tiles

Array = npt.NDArray[Any]
Pair = tuple[int, int]
Shape = tuple[int, ...]

STRIPS = 4  # of an image whose rows are needed by several rows of the result


def thick_to_thin(
    thick: Array,
    matrix: Array,
    thin: Array,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    gather: bool,
) -> None:
    """thin from thick N,Q,U,o and a matrix (o, (kh, kw, c)).

    `gather`: result i takes tap k of source i s - p + k; otherwise source i gives its tap k to
    result i s - p + k.
    """
    cells, work, tasks = _ring_cells(thick.shape, thin.shape, kernel_size, stride, padding, gather)
    with scratch() as space:
        buffers = space.array((threads(), work))
        run(_collect, tasks, thick, matrix, *matrix.strides, thin, buffers, cells)


@functools.lru_cache(1024)
def _ring_cells(
    thick: Shape, thin: Shape, kernel_size: Pair, stride: Pair, padding: Pair, gather: bool
) -> tuple[Array, int, int]:
    """Sizes for `_collect`, a thread's working memory in numbers, and the number of tasks.

    A task has a strip of rows of one image. Rows of products that two strips need are made twice.
    """
    n, q, u, o = thick
    _, h, w, c = thin
    kh, kw = kernel_size
    strips = max(1, min(-(-STRIPS // max(n, 1)), h // (4 * kh)))
    rows = -(-h // strips)
    ring = kh if gather else (kh - 1) // stride[0] + 1
    t_pixel = -(-kh * kw * c // LANES) * LANES  # numbers
    v_pixel = -(-kw * c // LANES) * LANES
    products, sums = ring * u * t_pixel + v_pixel, u * v_pixel
    work = products + sums + o * -(-t_pixel // PANEL) * PANEL
    cells = (q, u, o, h, w, c, *kernel_size, *stride, *padding, gather, rows, ring)
    sizes = 4 * t_pixel, 4 * v_pixel, 4 * products, 4 * sums, 4 * work
    return np.array((*cells, *sizes), np.int64), work, n * -(-h // rows)


@kernel
def _collect(args, task, thread):  # type: ignore[no-untyped-def]
    """Some rows of a thin result: products of rows of the thick image, then their sums."""
    cells = arg(args, 6)
    Q, U, o = arg(cells, 0), arg(cells, 1), arg(cells, 2)
    H, W, c = arg(cells, 3), arg(cells, 4), arg(cells, 5)
    kh, kw, s_y, s_x = arg(cells, 6), arg(cells, 7), arg(cells, 8), arg(cells, 9)
    p_y, p_x, gather, rows = arg(cells, 10), arg(cells, 11), arg(cells, 12), arg(cells, 13)
    ring, t_pixel, v_pixel = arg(cells, 14), arg(cells, 15), arg(cells, 16)
    T = arg(args, 5) + thread * arg(cells, 19)
    V = T + arg(cells, 17)
    panels = V + arg(cells, 18)
    lanes = kh * kw * c
    pack_panels(arg(args, 1), arg(args, 2), arg(args, 3), o, lanes, panels, o * PANEL_BYTES)
    per_image = (H + rows - 1) // rows
    n, y0 = task // per_image, task % per_image * rows
    source = arg(args, 0) + n * Q * U * o * 4
    made = 0  # rows of T
    for y in range(y0, min(H, y0 + rows)):
        # Source rows that meet row y, from the lowest to the highest.
        if gather:
            low, high = y * s_y - p_y, y * s_y - p_y + kh - 1
        else:
            low, high = -((kh - 1 - y - p_y) // s_y), (y + p_y) // s_y
        made = max(made, low)
        while made <= min(high, Q - 1):
            row, A = T + made % ring * U * t_pixel, source + made * U * o * 4
            for j in range(0, lanes, PANEL):
                width = (min(PANEL, lanes - j) + LANES - 1) // LANES
                B, C = panels + j * o * 4, row + 4 * j
                tiles(width, U, A, o * 4, 4, o, 1, 0, B, PANEL_BYTES, C, t_pixel, 0)
            made += 1
        _add_rows(
            T,
            V,
            U,
            max(low, 0),
            min(high, Q - 1),
            y,
            ring,
            gather,
            s_y,
            p_y,
            kw * c,
            t_pixel,
            v_pixel,
        )
        out = arg(args, 4) + (n * H + y) * W * c * 4
        for i in range(W * c):
            store_f32(out + 4 * i, np.float32(0))
        for k in range(kw):
            _add_column(V, out, U, W, k, gather, s_x, p_x, c, v_pixel)


@part
def _add_rows(T, V, U, low, high, y, ring, gather, s_y, p_y, run_length, t_pixel, v_pixel):  # type: ignore[no-untyped-def]
    """V[u, (kw, c)] = sum over the source rows that meet row y of their tap row."""
    zero = spread(np.float32(0))
    if low > high:
        for i in range(0, U * v_pixel, BYTES):
            store(V + i, zero)
    for q in range(low, high + 1):
        k = q - y * s_y + p_y if gather else y + p_y - q * s_y
        row = T + q % ring * U * t_pixel + k * run_length * 4
        for u in range(U):
            for i in range(0, v_pixel, BYTES):
                value = load(row + u * t_pixel + i)
                if q > low:
                    value = load(V + u * v_pixel + i) + value
                store(V + u * v_pixel + i, value)


@part
def _add_column(V, out, U, W, k, gather, s_x, p_x, c, v_pixel):  # type: ignore[no-untyped-def]
    """Add column k of the kernel to a row of the result."""
    if gather:  # x takes from u = x s - p + k
        first = max(0, -((k - p_x) // s_x))
        last = min(W - 1, (U - 1 - k + p_x) // s_x)
        a, a_step = first * s_x - p_x + k, s_x
        b, b_step = first, 1
    else:  # u gives to x = u s - p + k
        first = max(0, -((k - p_x) // s_x))
        last = min(U - 1, (W - 1 - k + p_x) // s_x)
        a, a_step = first, 1
        b, b_step = first * s_x - p_x + k, s_x
    a, b = V + a * v_pixel + k * c * 4, out + b * c * 4
    for _ in range(last - first + 1):
        for i in range(c):
            store_f32(b + 4 * i, load_f32(b + 4 * i) + load_f32(a + 4 * i))
        a += a_step * v_pixel
        b += b_step * c * 4
