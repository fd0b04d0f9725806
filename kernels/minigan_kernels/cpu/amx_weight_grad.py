"""The gradient of a convolution's weight on the matrix unit.

    dw[o, k, c] = sum over images and places i of g[i, o] x[i s + k - p, c]

Now the places are what is summed over, and the unit wants them in pairs that stay together under
every tap. So the images of a batch are paired: 16 lanes of a tile hold image n beside image n + 1
at one place, and a tap moves both. Where the number of images does not fill tiles (one image!) each
is first cut into `bands` of rows, and bands are paired just so. A band and an image of it is called
a strip; both operands are stored with the strips innermost:

    B  (part, plane, channels / 16, y, x, strips / 2, 16, 2)     x in planes as for `amx_conv`
    A  (part, outputs / 16, y, step, 16 outputs, 16, 2)          g, transposed tile by tile

A row of a strip is cut into steps of up to 16 pairs; the last step overlaps the one before, and A
has zeros where it does. (So a NaN of x meets a zero there: it makes NaN of more taps than in the
definition, all of them of its channel.) Rows are taken in blocks whose A and B stay in the
cache for all taps; their sums are added up in dw, in float32, which is also more accurate than
one long chain of additions.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.amx_conv import ROOM
from minigan_kernels.cpu.amx_plan import Axis, forward_axis, smaller_and_smaller
from minigan_kernels.cpu.amx_split import (
    BLOCK,
    LINE,
    TILE,
    numbers,
    products,
    split_pairs,
    store_block,
    zero_block,
)
from minigan_kernels.cpu.amx_tiles import TILES_BYTES, tileconfig, tilerelease
from minigan_kernels.cpu.parallel import arg, kernel, part, run
from minigan_kernels.cpu.scratch import scratch
from minigan_kernels.cpu.simd import BYTES, LANES, load, store, store_part, transpose
from minigan_kernels.cpu.threads import threads
from minigan_kernels.precision import PRECISION

Array = npt.NDArray[Any]
Pair = tuple[int, int]

STRIPS_BYTES = 32 << 20  # at most so much of both operands is split at a time
CACHED_BYTES = 900 << 10  # of A and B: what the second-level cache holds
MOST_BANDS = 8
TASKS = 16  # enough to keep several threads busy to the end


@part
def _strip(strip: int, bands: int, N: int, band_rows: int) -> tuple[int, int]:
    """Image (-1: there is none) and first row of results of a strip."""
    image = strip // bands
    return image if image < N else -1, strip % bands * band_rows


@kernel
def split_strips(args: int, task: int, thread: int) -> None:
    """B: row `task % rows` of plane `task // rows` of all strips."""
    x, to, parts, part_bytes = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    N, H, W, C = arg(args, 4), arg(args, 5), arg(args, 6), arg(args, 7)
    rows, columns, pairs = arg(args, 8), arg(args, 9), arg(args, 10)
    bands, band_rows, planes_x = arg(args, 11), arg(args, 12), arg(args, 13)
    step_y, step_x, top, left = arg(args, 14), arg(args, 15), arg(args, 16), arg(args, 17)
    plane, row = task // rows, task % rows
    blocks = -(-C // BLOCK) * 2
    block_bytes = rows * columns * pairs * LINE
    to += plane * blocks * block_bytes + row * columns * pairs * LINE
    for column in range(columns):
        u = column * step_x + plane % planes_x - left
        for pair in range(pairs):
            n0, first0 = _strip(2 * pair, bands, N, band_rows)
            n1, first1 = _strip(2 * pair + 1, bands, N, band_rows)
            y0 = (first0 + row) * step_y + plane // planes_x - top
            y1 = (first1 + row) * step_y + plane // planes_x - top
            inside = 0 <= u < W
            count0 = C if inside and n0 >= 0 and 0 <= y0 < H else 0
            count1 = C if inside and n1 >= 0 and 0 <= y1 < H else 0
            p0 = x + 4 * C * ((n0 * H + y0) * W + u)
            p1 = x + 4 * C * ((n1 * H + y1) * W + u)
            for block in range(blocks):
                c = LANES * block
                v0, v1 = numbers(p0 + 4 * c, count0 - c), numbers(p1 + 4 * c, count1 - c)
                split_pairs(v0, v1, to + block * block_bytes, part_bytes, parts)
            to += LINE


@kernel
def transpose_strips(args: int, task: int, thread: int) -> None:
    """A: step `task % steps` of row `task // steps` of all strips."""
    g, to, parts, part_bytes = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    N, H, W, outputs = arg(args, 4), arg(args, 5), arg(args, 6), arg(args, 7)
    band_rows, steps, wide, pairs = arg(args, 8), arg(args, 9), arg(args, 10), arg(args, 11)
    bands, first_row, end_row = arg(args, 12), arg(args, 13), arg(args, 14)
    room = arg(args, 15) + thread * ROOM
    row, step = task // steps, task % steps
    begin = min(wide * step, W * pairs - wide)  # the first pair; wide pairs are a step
    for block in range(-(-outputs // BLOCK) * 2):
        o = LANES * block
        for k in range(LANES):
            column, pair = (begin + k) // pairs, (begin + k) % pairs
            new = wide * step <= begin + k < begin + wide
            n0, first0 = _strip(2 * pair, bands, N, band_rows)
            n1, first1 = _strip(2 * pair + 1, bands, N, band_rows)
            y0, y1 = first_row + first0 + row, first_row + first1 + row
            count0 = outputs - o if new and n0 >= 0 and y0 < end_row else 0
            count1 = outputs - o if new and n1 >= 0 and y1 < end_row else 0
            v0 = numbers(g + 4 * (outputs * ((n0 * H + y0) * W + column) + o), count0)
            v1 = numbers(g + 4 * (outputs * ((n1 * H + y1) * W + column) + o), count1)
            split_pairs(v0, v1, room + LINE * k, TILE, parts)
        tile = to + TILE * ((block * band_rows + row) * steps + step)
        for q in range(parts):
            transpose(room + TILE * q, LINE, tile + part_bytes * q, LINE)


@kernel
def multiply_strips(args: int, task: int, thread: int) -> None:
    """32 outputs x 32 channels of dw, for some of the taps."""
    A, B, dw, table = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    parts, a_part, b_part, add = arg(args, 4), arg(args, 5), arg(args, 6), arg(args, 7)
    outputs, C, taps, taps_per_task = arg(args, 8), arg(args, 9), arg(args, 10), arg(args, 11)
    rows, steps, wide, line = arg(args, 12), arg(args, 13), arg(args, 14), arg(args, 15)
    plane_rows, plane_columns, row_pairs = arg(args, 16), arg(args, 17), arg(args, 18)
    block_rows, tiles = arg(args, 19), arg(args, 20) + thread * ROOM
    blocks, panels = -(-C // BLOCK), -(-outputs // BLOCK)
    c, o = task % blocks, task // blocks % panels
    first = task // (blocks * panels) * taps_per_task
    whole = steps if steps * wide == row_pairs else steps - 1  # steps that do not overlap
    a_block, b_block = rows * steps * TILE, plane_rows * plane_columns * line
    tileconfig(tiles, 16, wide)
    for begin in range(0, rows, block_rows):
        for index in range(first, min(first + taps_per_task, taps)):
            plane, tap = arg(table, 4 * index), arg(table, 4 * index + 1)
            j, i = arg(table, 4 * index + 2), arg(table, 4 * index + 3)
            zero_block(tiles)
            for row in range(begin, min(begin + block_rows, rows)):
                a = A + (2 * o * rows + row) * steps * TILE
                b = B + (plane * 2 * blocks + 2 * c) * b_block
                b += ((row + j) * plane_columns + i) * line
                a1, b1, b_step = a + a_block, b + b_block, wide * LINE
                products(tiles, parts, a, a1, a_part, TILE, b, b1, b_part, b_step, whole)
                if whole < steps:
                    a += whole * TILE
                    b += (row_pairs - wide) * LINE
                    products(tiles, parts, a, a + a_block, a_part, 0, b, b + b_block, b_part, 0, 1)
            sums = tiles + TILES_BYTES
            store_block(tiles, sums)
            _collect(sums, dw, outputs, C, taps, BLOCK * o, BLOCK * c, tap, add or begin)
    tilerelease(tiles)


@part
def _collect(
    sums: int, dw: int, outputs: int, C: int, taps: int, o: int, c: int, tap: int, add: int
) -> None:
    """dw[o : o + 32, tap, c : c + 32] = sums, or += sums."""
    for row in range(min(BLOCK, outputs - o)):
        for half in range(2):
            count = min(LANES, C - c - LANES * half)
            if count > 0:
                p = dw + 4 * (((o + row) * taps + tap) * C + c + LANES * half)
                v = load(sums + 4 * BLOCK * row + BYTES * half)
                if add:
                    v = numbers(p, count) + v
                if count == LANES:
                    store(p, v)
                else:
                    store_part(p, v, count)


def weight_grad(x: Array, g: Array, dw: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """x (N,H,W,C), g (N,Ho,Wo,O); fills dw (O,KH,KW,C). All are C-contiguous."""
    if not (x.size and g.size):
        dw.fill(0)
        return
    parts = 2 if PRECISION.get() == "tf32" else 3
    N, rows = g.shape[:2]
    layout = _layout(dw.shape[1:3], stride, padding, g.shape[2])
    with scratch() as space:
        room = space.array((threads(), ROOM), np.uint8)
        ways: dict[
            int, tuple[int, int, int]
        ] = {}  # size -> images, rows and bands of the first block, which is the largest
        for images, high in smaller_and_smaller(N, rows):
            bands = _bands(images, high, g.shape[2])
            size = parts * sum(_sizes(layout, images, high, bands, x.shape[3], g.shape[3]))
            ways.setdefault(size, (images, high, bands))
        sizes = sorted((size for size in ways if size <= STRIPS_BYTES), reverse=True) or [min(ways)]
        both = space.first_that_fits([(size,) for size in sizes], np.uint8)
        images, high, bands = ways[len(both)]
        for n in range(0, N, images):
            some = slice(n, min(n + images, N))
            for row in range(0, rows, high):
                piece = (bands, row, min(high, rows - row))
                _add(x[some], g[some], dw, layout, parts, *piece, both, room, n or row)


class _Layout(NamedTuple):
    y: Axis
    x: Axis
    table: npt.NDArray[np.int64]  # plane, tap, and the place (j, i) in the plane, tap by tap


@lru_cache(maxsize=1024)
def _layout(kernel: Pair, stride: Pair, padding: Pair, width: int) -> _Layout:
    y, x = (forward_axis(0, kernel[i], stride[i], padding[i], width) for i in range(2))
    table = []
    for a, b in itertools.product(y.lines, x.lines):
        for j, i in itertools.product(range(a.taps), range(b.taps)):
            row, column = a.first + y.tap_step * j, b.first + x.tap_step * i
            table.append((a.plane * x.planes + b.plane, row * kernel[1] + column, j, i))
    return _Layout(y, x, np.array(table, np.int64))


def _blocks(channels: int) -> int:
    return -(-channels // BLOCK)


@lru_cache(maxsize=1024)
def _bands(images: int, rows: int, width: int) -> int:
    """How many bands to cut images into, such that few steps do."""

    def steps(bands: int) -> int:
        high, _, across, _ = _cut(images, rows, width, bands)
        return high * across

    return min(range(1, min(MOST_BANDS, rows) + 1), key=steps)


def _cut(images: int, rows: int, width: int, bands: int) -> tuple[int, int, int, int]:
    """Rows of a strip, pairs of strips, steps of a row, and pairs of a step."""
    pairs = -(-images * bands // 2)
    steps = -(-width * pairs // LANES)
    return -(-rows // bands), pairs, steps, -(-width * pairs // steps)


def _sizes(
    layout: _Layout, images: int, rows: int, bands: int, C: int, outputs: int
) -> tuple[int, int]:
    """Bytes of one part of A and of B."""
    high, pairs, steps, _ = _cut(images, rows, layout.x.results, bands)
    a = 2 * _blocks(outputs) * high * steps * TILE
    width = layout.x.results + layout.x.reach
    b = len(layout.y.lines) * len(layout.x.lines) * 2 * _blocks(C)
    return a, b * (high + layout.y.reach) * width * pairs * LINE


def _add(
    x: Array,
    g: Array,
    dw: Array,
    layout: _Layout,
    parts: int,
    bands: int,
    row: int,
    rows: int,
    both: Array,
    room: Array,
    add: int,
) -> None:
    """Some images and rows: split them, multiply; the first ones fill dw, the others add to it."""
    N, _, width, outputs = g.shape
    C, taps = x.shape[3], len(layout.table)
    high, pairs, steps, wide = _cut(N, rows, width, bands)
    a_bytes, b_bytes = _sizes(layout, N, rows, bands, C, outputs)
    A, B = both[: parts * a_bytes], both[parts * a_bytes :]
    y, plane_rows, plane_columns = layout.y, high + layout.y.reach, width + layout.x.reach
    run(
        split_strips,
        len(y.lines) * len(layout.x.lines) * plane_rows,
        *(x, B, parts, b_bytes, *x.shape, plane_rows, plane_columns, pairs),
        *(bands, high, layout.x.planes, y.source_step, layout.x.source_step),
        *(y.before - row * y.source_step, layout.x.before),
    )
    run(
        transpose_strips,
        high * steps,
        *(g, A, parts, a_bytes, *g.shape, high, steps, wide, pairs, bands, row, row + rows, room),
    )
    blocks = _blocks(outputs) * _blocks(C)
    taps_per_task = -(-taps // min(taps, -(-TASKS // blocks)))
    row_bytes = parts * 2 * (steps * TILE + plane_columns * pairs * LINE)
    run(
        multiply_strips,
        blocks * -(-taps // taps_per_task),
        *(A, B, dw, layout.table, parts, a_bytes, b_bytes, add, outputs, C, taps, taps_per_task),
        *(high, steps, wide, pairs * LINE, plane_rows, plane_columns, width * pairs),
        *(max(1, CACHED_BYTES // row_bytes), room),
    )
