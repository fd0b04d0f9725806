"""Matrix products on all cores: blocks of C as tasks, packed panels, the microkernel.

    C[i, j] = sum over k of A[i, k] B[k, j]

Numbers are packed before they are multiplied, because the microkernel reads each of them many
times. B becomes panels of some 32 columns, a panel's rows one after the other:

    panels[p, k, :] = B[k, 32 p : 32 p + 32]

so that the vectors of B come in a single stream. A keeps its shape, with a row length that is no
multiple of the cache's period. Both packings also undo transposes, so views cost nothing extra.

A task is a block of rows and columns of C, k a few hundred at a time. If C is too small for all
threads, the sum over k is cut as well: tasks write partial sums, which are then added in order.
Where the blocks lie depends on shapes only, so results are the same bits for any number of threads.

Small products go to BLAS, which has one thread here (see threads.py).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.microkernel import PANEL, PANEL_BYTES, TALLEST
from minigan_kernels.cpu.parallel import arg, kernel, run
from minigan_kernels.cpu.scratch import Space, aligned, scratch
from minigan_kernels.cpu.simd import (
    BYTES,
    LANES,
    fma,
    load,
    load_part,
    spread,
    store_f32,
    store_part,
    total,
)
from minigan_kernels.cpu.threads import threads
from minigan_kernels.cpu.tiles import copy_rows, pack_panels, times_panel

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

SMALL = 3 << 19  # multiply-adds below which BLAS on one core is faster than we on all
DEPTH = 384  # steps of k whose panels are packed together: they stay in the second-level cache
MOST_ROWS, MOST_COLUMNS = 20 * TALLEST, 256  # of a block of C
MOST_PACKED = 32 << 20  # bytes
TASKS = 16  # at least so many, if each has
LEAST = 1 << 19  # multiply-adds
NARROW, ROWS = 4, 64  # columns of C below which numbers are dot products; rows of a task then
SUM = 512  # numbers that one task adds up


def matmul(a: Array, b: Array) -> Array:
    """Matrix products of the last two axes; leading axes are broadcast, as in np.matmul."""
    if a.size * b.shape[-1] < SMALL or a.dtype != np.float32 or b.dtype != np.float32:
        threads()  # gives BLAS its one thread before its first product
        return np.matmul(a, b)
    if a.ndim == b.ndim == 2:
        c = aligned((a.shape[0], b.shape[1]))
        multiply(a, b, c)
        return c
    return _stack(a, b)


def product_into(a: Array, b: Array, c: Array) -> None:
    """c = a b for float32 matrices; c is C-contiguous."""
    if a.shape[1] == 1:
        np.multiply(a, b, out=c)
    elif a.size * b.shape[1] < SMALL:
        np.matmul(a, b, out=c)
    else:
        multiply(a, b, c)


def _stack(a: Array, b: Array) -> Array:
    """A product for every matrix of a stack."""
    if a.shape[-2] * b.shape[-2] * b.shape[-1] < SMALL // LANES:
        return np.matmul(a, b)
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    c = aligned((*lead, a.shape[-2], b.shape[-1]))
    a, b = (np.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(-1, *x.shape[-2:]) for x in (a, b))
    multiply(a, b, c.reshape(-1, *c.shape[-2:]))
    return c


def multiply(a: Array, b: Array, c: Array) -> None:
    """c = a b for float32 matrices, or for equal stacks of matrices; c is C-contiguous.

    No axis may be empty.
    """
    a, b = _along(a), _along(b)
    if c.ndim == 2 and c.shape[1] <= NARROW and a.strides[1] == 4:
        columns = np.ascontiguousarray(b.T)
        run(_dots, -(-len(a) // ROWS), a, a.strides[0], columns, c, *a.shape, c.shape[1])
        return
    plan = _plan(a.shape, a.strides, b.shape, b.strides)
    with scratch() as space:
        target = space.array((plan.splits, c.size)) if plan.splits > 1 else c
        panels = pack(b, space) if plan.packed else b
        work = space.array((threads(), plan.work))
        run(_multiply, plan.tasks, a, panels, target, work, plan.cells)
        if plan.splits > 1:
            add_parts(target, c)


def pack(b: Array, space: Space) -> Array:
    """The panels (stacks, panels, k, PANEL) of a matrix or a stack."""
    k, n = b.shape[-2:]
    stacks = b.shape[0] if b.ndim == 3 else 1
    panels = space.array((stacks, -(-n // PANEL), k, PANEL))
    rows = 64
    tasks = stacks * -(-k // rows) * -(-n // MOST_COLUMNS)
    run(_pack, tasks, b, _stride(b.strides), b.strides[-2], b.strides[-1], panels, k, n, rows)
    return panels


def add_parts(parts: Array, c: Array) -> None:
    """c = parts[0] + parts[1] + ..., in this order; both C-contiguous."""
    run(_sum, -(-c.size // SUM), parts, c, c.size, parts.shape[0])


class Plan(NamedTuple):
    """How one product is cut into tasks: all that depends on shapes and strides."""

    tasks: int
    splits: int  # of k
    packed: bool  # B is packed beforehand
    work: int  # float32 numbers of working memory per thread
    cells: Array  # the sizes as the kernel reads them


@functools.lru_cache(1024)
def _plan(a_shape: Shape, a_strides: Shape, b_shape: Shape, b_strides: Shape) -> Plan:
    (m, k), n = a_shape[-2:], b_shape[-1]
    stacks = a_shape[0] if len(a_shape) == 3 else 1
    rows, columns, depth = _blocks(stacks, m, n, k)
    row_blocks, splits = -(-m // rows), -(-k // depth)
    # Several tasks may want the same panels.
    packed = row_blocks > 1 and 4 * stacks * k * n <= MOST_PACKED
    chunk = _part(depth, DEPTH, LANES)
    left = max(rows * (chunk + 2 * LANES), chunk * (rows + 2 * LANES))
    right = 0 if packed else columns * chunk
    cells = (
        *(_stride(a_strides), *a_strides[-2:], _stride(b_strides), *b_strides[-2:], packed),
        *(stacks, m, n, k, rows, columns, depth, chunk),
        *(4 * (left + right + rows * PANEL), 4 * left, 4 * right),
    )
    return Plan(
        stacks * row_blocks * -(-n // columns) * splits,
        splits,
        packed,
        left + right + rows * PANEL,
        np.array(cells, np.int64),
    )


def _along(x: Array) -> Array:
    """x, or a copy if neither the rows nor the columns of its matrices are contiguous."""
    return x if 4 in x.strides[-2:] else np.ascontiguousarray(x)


def _stride(strides: Shape) -> int:
    """From one matrix of a stack to the next."""
    return strides[0] if len(strides) == 3 else 0


def _blocks(stacks: int, m: int, n: int, k: int) -> tuple[int, int, int]:
    """Rows, columns and k of a task: equal parts, enough of them and none too small.

    Cutting columns means that A is copied more often, cutting k makes partial sums, and cutting
    rows costs most: B must be packed beforehand.
    """
    rows, columns, depth = _part(m, MOST_ROWS, TALLEST), _part(n, MOST_COLUMNS, PANEL), k

    def more(enough: int = TASKS) -> bool:
        tasks = stacks * -(-m // rows) * -(-n // columns) * -(-k // depth)
        return tasks < enough and rows * columns * depth >= 2 * LEAST

    while columns > 4 * PANEL and more():
        columns = _part(n, columns // 2, PANEL)
    while depth >= 2 * DEPTH and more():
        depth = _part(k, depth // 2, LANES)
    if columns > 2 * PANEL and more(TASKS // 2):
        columns = _part(n, columns // 2, PANEL)
    while rows > 8 * TALLEST and more(TASKS // 2):
        rows = _part(m, rows // 2, TALLEST)
    return rows, columns, depth


def _part(length: int, most: int, multiple: int) -> int:
    """The length of equal parts, each at most about `most`, in multiples of `multiple`."""
    parts = -(-length // most)
    return -(-length // (parts * multiple)) * multiple


@kernel
def _pack(args, task, thread):  # type: ignore[no-untyped-def]
    """A block of B, as a part of its panels."""
    b, b_stack, b_k, b_column = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    panels, k, n, rows = arg(args, 4), arg(args, 5), arg(args, 6), arg(args, 7)
    down, across = (k + rows - 1) // rows, (n + MOST_COLUMNS - 1) // MOST_COLUMNS
    i, which = task % down * rows, task // down
    j, stack = which % across * MOST_COLUMNS, which // across
    source = b + stack * b_stack + i * b_k + j * b_column
    panel = stack * ((n + PANEL - 1) // PANEL) + j // PANEL
    target = panels + (panel * k + i) * PANEL_BYTES
    count = min(MOST_COLUMNS, n - j)
    pack_panels(source, b_k, b_column, min(rows, k - i), count, target, k * PANEL_BYTES)


@kernel
def _multiply(args, task, thread):  # type: ignore[no-untyped-def]
    """One block of C, for one part of k."""
    plan = arg(args, 4)
    a_stack, a_row, a_k = arg(plan, 0), arg(plan, 1), arg(plan, 2)
    b_stack, b_k, b_column, packed = arg(plan, 3), arg(plan, 4), arg(plan, 5), arg(plan, 6)
    stacks, M, N, K = arg(plan, 7), arg(plan, 8), arg(plan, 9), arg(plan, 10)
    rows, columns, depth, chunk = arg(plan, 11), arg(plan, 12), arg(plan, 13), arg(plan, 14)
    left = arg(args, 3) + thread * arg(plan, 15)
    right = left + arg(plan, 16)
    edge = right + arg(plan, 17)  # a panel of C that is not as wide as a tile

    row_blocks, column_blocks = (M + rows - 1) // rows, (N + columns - 1) // columns
    i0, which = task % row_blocks * rows, task // row_blocks
    j0, which = which % column_blocks * columns, which // column_blocks
    stack, split = which % stacks, which // stacks
    m, n = min(rows, M - i0), min(columns, N - j0)
    a = arg(args, 0) + stack * a_stack + i0 * a_row
    c = arg(args, 2) + ((split * stacks + stack) * M + i0) * N * 4 + j0 * 4
    first, end = split * depth, min(K, split * depth + depth)
    for k in range(first, end, chunk):
        kc = min(chunk, end - k)
        if a_k == 4:
            l_row, l_k = (-(-kc // LANES) + 1) * 64, 4
            copy_rows(a + k * a_k, a_row, m, kc, left, l_row)
        else:
            l_row, l_k = 4, (-(-m // LANES) + 1) * 64
            copy_rows(a + k * a_k, a_k, kc, m, left, l_k)
        if packed:
            panel_bytes = K * PANEL_BYTES
            b = (
                arg(args, 1)
                + (stack * -(-N // PANEL) + j0 // PANEL) * panel_bytes
                + k * PANEL_BYTES
            )
        else:
            panel_bytes = kc * PANEL_BYTES
            b = right
            source = arg(args, 1) + stack * b_stack + k * b_k + j0 * b_column
            pack_panels(source, b_k, b_column, kc, n, b, panel_bytes)
        for j in range(0, n, PANEL):
            panel = b + j // PANEL * panel_bytes
            count = min(PANEL, n - j)
            times_panel(
                count, m, left, l_row, l_k, kc, 1, 0, panel, c + 4 * j, 4 * N, edge, k - first
            )


@kernel
def _dots(args, task, thread):  # type: ignore[no-untyped-def]
    """Some rows of a narrow C, four at a time; the vectors run along k."""
    a_row, m, k, n = arg(args, 1), arg(args, 4), arg(args, 5), arg(args, 6)
    end = min(m, task * ROWS + ROWS)
    whole = k // LANES * LANES
    for i in range(task * ROWS, end, 4):
        # The last rows may be the same one four times.
        i1, i2, i3 = min(i + 1, end - 1), min(i + 2, end - 1), min(i + 3, end - 1)
        a = arg(args, 0)
        a0, a1, a2, a3 = a + i * a_row, a + i1 * a_row, a + i2 * a_row, a + i3 * a_row
        for j in range(n):
            b, c = arg(args, 2) + j * k * 4, arg(args, 3) + j * 4
            s0 = s1 = s2 = s3 = spread(np.float32(0))
            for p in range(0, 4 * whole, BYTES):
                v = load(b + p)
                s0, s1 = fma(load(a0 + p), v, s0), fma(load(a1 + p), v, s1)
                s2, s3 = fma(load(a2 + p), v, s2), fma(load(a3 + p), v, s3)
            if whole < k:
                p, rest = 4 * whole, k - whole
                v = load_part(b + p, rest)
                s0 = fma(load_part(a0 + p, rest), v, s0)
                s1 = fma(load_part(a1 + p, rest), v, s1)
                s2 = fma(load_part(a2 + p, rest), v, s2)
                s3 = fma(load_part(a3 + p, rest), v, s3)
            store_f32(c + i * n * 4, total(s0))
            store_f32(c + i1 * n * 4, total(s1))
            store_f32(c + i2 * n * 4, total(s2))
            store_f32(c + i3 * n * 4, total(s3))


@kernel
def _sum(args, task, thread):  # type: ignore[no-untyped-def]
    """Add up partial sums, in order."""
    parts, c, n, splits = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    for i in range(task * SUM, min(n, task * SUM + SUM), LANES):
        count = min(LANES, n - i)
        value = load_part(parts + 4 * i, count)
        for split in range(1, splits):
            value = value + load_part(parts + 4 * (split * n + i), count)
        store_part(c + 4 * i, value, count)
