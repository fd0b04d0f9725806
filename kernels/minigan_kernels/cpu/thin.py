"""Convolutions with few channels on one side: images to features, features to images.

The vectors of a kernel run along channels, and three channels do not fill one of sixteen lanes. So
the few channels are put together with the taps of the kernel, in one of three ways.

**Thin input, thick result** (`_spread`). With channels-last memory, what one row of the kernel
meets is one run of numbers: KW taps times c channels. The convolution is then a matrix product

    y[n, i, j, :] = sum over kh, m of  x[n, i s - p + kh, (j s - p) c + m]  W[kh, m, :]

with m = (kw, channel) and no gathering at all: neighbouring rows of the left matrix overlap. Only
the rows that a task reads are copied, to put zeros around them.

**Thick input, thin result**: see thin_result.py.

**Weight gradient** (`_correlate`). The same run of the thin side, as a column, times the channels
of the thick side, as a row, summed over all pixels: dW[kh, m, :] = sum x[.., m] g[..., :]. Tasks
add up some rows each, and their sums are added in order.

Zeros around the image are multiplied: infinities beside them make NaN where the definition
would stay infinite.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.matmul import add_parts
from minigan_kernels.cpu.microkernel import PANEL, PANEL_BYTES
from minigan_kernels.cpu.parallel import arg, kernel, part, run
from minigan_kernels.cpu.scratch import scratch
from minigan_kernels.cpu.simd import BYTES, LANES, fetch, spread, store
from minigan_kernels.cpu.thin_result import thick_to_thin
from minigan_kernels.cpu.threads import threads
from minigan_kernels.cpu.tiles import copy_rows, pack_panels, tiles, times_panel

Array = npt.NDArray[Any]
Pair = tuple[int, int]
Shape = tuple[int, ...]

THIN = 4  # channels
TASKS = 32  # at most so many, of about equal numbers of rows
LEAST = 1 << 18  # multiply-adds of a task
BLOCK = 256  # pixels whose vectors stay in the first-level cache


def takes(channels: int, outputs: int, kernel_size: Pair, stride: Pair, dilation: Pair) -> bool:
    """Whether these kernels are for a convolution of so many channels to so many outputs."""
    plain = all(d == 1 or k == 1 for k, d in zip(kernel_size, dilation, strict=True))
    return plain and (channels <= THIN or (outputs <= THIN and stride == (1, 1)))


def forward(x: Array, weight: Array, y: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """y = conv(x, weight).   x (N,H,W,C), weight (O,KH,KW,C), y (N,Ho,Wo,O)."""
    o, kh, kw, c = weight.shape
    if c <= THIN:
        _thin_to_thick(x, weight.reshape(o, -1).T, y, (kh, kw), stride, padding)
        return
    # T[(kh, kw, o)] = sum over c of x[c] w[o, kh, kw, c]
    matrix = weight.transpose(1, 2, 0, 3).reshape(-1, c).T
    thick_to_thin(x, matrix, y, (kh, kw), stride, padding, gather=True)


def transpose(
    g: Array, weight: Array, x: Array, stride: Pair, padding: Pair, dilation: Pair
) -> None:
    """x = conv_transpose(g, weight), the input gradient of `forward`."""
    o, kh, kw, c = weight.shape
    if c <= THIN:
        thick_to_thin(g, weight.reshape(o, -1), x, (kh, kw), stride, padding, gather=False)
        return
    # With stride one it is a convolution with the flipped kernel.
    flipped = weight[:, ::-1, ::-1].transpose(1, 2, 0, 3).reshape(-1, c)
    padding = kh - 1 - padding[0], kw - 1 - padding[1]
    _thin_to_thick(g, flipped, x, (kh, kw), stride, padding)


def weight_grad(x: Array, g: Array, dw: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """dw[o,kh,kw,c] = sum over n, i, j of g[n,i,j,o] x[n, i s - p + kh, j s - p + kw, c]."""
    o, kh, kw, c = dw.shape
    if not len(x):
        dw[...] = 0
        return
    thin, thick = (x, g) if c <= THIN else (g, x)
    if c > THIN:  # the same sum seen from x: g is met at i + p - kh
        padding = kh - 1 - padding[0], kw - 1 - padding[1]
    columns = -(-thick.shape[-1] // PANEL) * PANEL
    size = kh * kw * thin.shape[-1], columns
    cells, work, tasks = _cells(thin.shape, thick.shape, (kh, kw), stride, padding, 0)
    with scratch() as space:
        parts = space.array((tasks, *size))
        sums = space.array(size) if tasks > 1 else parts[0]
        run(_correlate, tasks, thin, thick, parts, space.array((threads(), work)), cells)
        if tasks > 1:
            add_parts(parts, sums)
        if c <= THIN:
            dw.reshape(o, -1)[...] = sums[:, :o].T
        else:
            flipped = sums[:, :c].reshape(kh, kw, o, c).transpose(2, 0, 1, 3)
            dw[...] = flipped[:, ::-1, ::-1]


def _thin_to_thick(
    thin: Array, matrix: Array, thick: Array, kernel_size: Pair, stride: Pair, padding: Pair
) -> None:
    """The first way; matrix ((kh, kw, c), o)."""
    panels = -(-thick.shape[3] // PANEL) * PANEL * len(matrix)
    cells, work, tasks = _cells(thin.shape, thick.shape, kernel_size, stride, padding, panels)
    with scratch() as space:
        buffers = space.array((threads(), work))
        run(_spread, tasks, thin, matrix, *matrix.strides, thick, buffers, cells)


@functools.lru_cache(1024)
def _cells(
    thin: Shape, thick: Shape, kernel_size: Pair, stride: Pair, padding: Pair, panels: int
) -> tuple[Array, int, int]:
    """Sizes for `_spread` and `_correlate`, a thread's working memory in numbers, and the tasks.

    A task has some rows of the thick side, of one image or several.
    """
    n, h, w, o = thick
    (kh, kw), c = kernel_size, thin[3]
    rows = n * h
    per_task = max(-(-rows // TASKS), LEAST // (w * kh * kw * c * o), 1)
    block = -(-h // -(-h // max(1, BLOCK // w)))  # equal parts of an image
    width = ((w - 1) * stride[1] + kw) * c
    pitch = -(-width // LANES) * LANES + LANES
    strip = ((block - 1) * stride[0] + kh) * pitch
    work = strip + max(w, BLOCK) * PANEL + panels
    cells = (*thin, *thick, *kernel_size, *stride, *padding, per_task, block, 4 * pitch)
    sizes = 4 * strip, 4 * (work - panels), 4 * work
    return np.array((*cells, *sizes), np.int64), work, -(-rows // per_task)


@part
def _copy_strip(thin, H, W, c, first, left, rows, width, strip, pitch):  # type: ignore[no-untyped-def]
    """Rows `first` .. of a thin image H,W,c from column `left`, with zeros beyond its bounds."""
    zero = spread(np.float32(0))
    start, end = max(0, left), min(W, left + width)
    for r in range(rows):
        row = strip + r * pitch
        for i in range(0, width * c, LANES):
            store(row + 4 * i, zero)
        if 0 <= first + r < H and start < end:
            source = thin + ((first + r) * W + start) * c * 4
            copy_rows(source, 0, 1, (end - start) * c, row + (start - left) * c * 4, 0)


@kernel
def _spread(args, task, thread):  # type: ignore[no-untyped-def]
    """Some rows of a thick result from the rows of a thin image that they meet."""
    cells = arg(args, 6)
    N, H, W, c = arg(cells, 0), arg(cells, 1), arg(cells, 2), arg(cells, 3)
    h, w, o = arg(cells, 5), arg(cells, 6), arg(cells, 7)
    kh, kw, s_y, s_x = arg(cells, 8), arg(cells, 9), arg(cells, 10), arg(cells, 11)
    p_y, p_x, rows = arg(cells, 12), arg(cells, 13), arg(cells, 14)
    block, pitch = arg(cells, 15), arg(cells, 16)
    strip = arg(args, 5) + thread * arg(cells, 19)
    edge, panels = strip + arg(cells, 17), strip + arg(cells, 18)
    K = kh * kw * c
    pack_panels(arg(args, 1), arg(args, 2), arg(args, 3), K, o, panels, K * PANEL_BYTES)
    row, end = task * rows, min(N * h, task * rows + rows)
    while row < end:
        n, i = row // h, row % h
        count = min(block, min(end - row, h - i))
        _copy_strip(
            arg(args, 0) + n * H * W * c * 4, H, W, c, i * s_y - p_y, -p_x,
            (count - 1) * s_y + kh, (w - 1) * s_x + kw, strip, pitch,
        )  # fmt: skip
        for j in range(0, o, PANEL):
            panel, columns = panels + j * K * 4, min(PANEL, o - j)
            for r in range(count):
                A = strip + r * s_y * pitch
                y = arg(args, 4) + ((row + r) * w * o + j) * 4
                times_panel(
                    columns, w, A, s_x * c * 4, 4, kw * c, kh, pitch, panel, y, 4 * o, edge, 0
                )
        row += count


@part
def _announce(p, length):  # type: ignore[no-untyped-def]
    """Have `length` bytes fetched into the cache."""
    for line in range(0, length, BYTES):
        fetch(p + line)


@kernel
def _correlate(args, task, thread):  # type: ignore[no-untyped-def]
    """The weight gradient of some rows of the thick side."""
    cells = arg(args, 4)
    N, H, W, c = arg(cells, 0), arg(cells, 1), arg(cells, 2), arg(cells, 3)
    h, w, o = arg(cells, 5), arg(cells, 6), arg(cells, 7)
    kh, kw, s_y, s_x = arg(cells, 8), arg(cells, 9), arg(cells, 10), arg(cells, 11)
    p_y, p_x, rows = arg(cells, 12), arg(cells, 13), arg(cells, 14)
    block, pitch = arg(cells, 15), arg(cells, 16)
    strip = arg(args, 3) + thread * arg(cells, 19)
    edge = strip + arg(cells, 17)
    m = kw * c
    z_row = (o + PANEL - 1) // PANEL * PANEL_BYTES
    Z = arg(args, 2) + task * kh * m * z_row
    row, end = task * rows, min(N * h, task * rows + rows)
    add = 0
    while row < end:
        n, i = row // h, row % h
        count = min(block, min(end - row, h - i))
        _copy_strip(
            arg(args, 0) + n * H * W * c * 4, H, W, c, i * s_y - p_y, -p_x,
            (count - 1) * s_y + kh, (w - 1) * s_x + kw, strip, pitch,
        )  # fmt: skip
        pixels, channels = count * w, arg(args, 1) + row * w * o * 4
        row += count
        # While this block is multiplied, the next one comes from memory: every channel is read
        # only a few times, and the processor's own guesses end where the pixels of a panel do.
        following, length = channels + pixels * o * 4, min(count, N * h - row) * w * o * 4
        share = length // (kh * ((o + PANEL - 1) // PANEL)) + BYTES
        for j in range(0, o, PANEL):
            B, pixel = channels + 4 * j, 4 * o
            columns = min(PANEL, o - j)
            width = (columns + LANES - 1) // LANES
            if columns % LANES:  # vectors must not reach beyond the array
                copy_rows(B, pixel, pixels, columns, edge, PANEL_BYTES)
                B, pixel = edge, PANEL_BYTES
            for k in range(kh):
                _announce(following, min(share, length))
                following, length = following + share, length - share
                A, C = strip + k * pitch, Z + k * m * z_row + 4 * j
                tiles(width, m, A, 4, s_x * c * 4, w, count, s_y * pitch, B, pixel, C, z_row, add)
        add = 1
