"""Convolution as a matrix product whose left matrix is never whole: implicit GEMM.

Let a row of the matrix A hold what the kernel sees at one output position, tap by tap, and let B
be the weight with one column per output channel. Then y = A B for any stride, padding and
dilation, and dw = g^T A. All of A would be as large as the input times the number of taps, so each
task gathers a block of it,

    ROWS positions x about DEPTH (taps and channels)      0.5 MB: it stays in the second-level cache

multiplies it with every panel of B (PANEL output channels, packed so that each step of k reads one
or two whole cache lines) by the tiles of microkernel.py, and goes on to the next taps. Sums over
more than DEPTH products are sums of such blocks, which also rounds less than one long sum.

A transposed convolution is one small convolution per phase of the stride (kernels/README.md): all
phases are tasks of the same run, no zero is multiplied, and each result goes to its own place.
Where there are few positions, packing the weight would cost as much as using it; then every task
packs the few panels that it alone needs, when it needs them, in the cache.

Arrays: float32, C-contiguous, channels last. NaN and infinity propagate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.direct_plan import (
    BLOCK,
    BROAD,
    COPIES,
    COPY,
    HEIGHT,
    INPUTS,
    KERNEL_WIDTH,
    LINE,
    LINES,
    MOVE_X,
    MOVE_Y,
    OUTPUTS,
    OUTPUTS_FIRST,
    OWN_PANEL,
    PACKED,
    PHASE,
    SHARED,
    START_X,
    START_Y,
    STEP_X,
    STEP_Y,
    TALL,
    TAP_STEP_X,
    TAP_STEP_Y,
    TAP_X,
    TAP_Y,
    TAPS,
    TAPS_X,
    TAPS_Y,
    TILE_BYTES,
    WIDTH,
    Y_IMAGE,
    Y_PIXEL,
    Y_ROW,
    Y_START,
    Pair,
    Plan,
    forward_plan,
    pitch,
    transpose_plan,
    weight_grad_plan,
)
from minigan_kernels.cpu.indirect import gradient_tile, window_tile
from minigan_kernels.cpu.microkernel import PANEL, PANEL_BYTES, TALLEST, VECTORS
from minigan_kernels.cpu.pack import copy, transposed, zeros
from minigan_kernels.cpu.parallel import arg, kernel, part, run
from minigan_kernels.cpu.scratch import Space, scratch
from minigan_kernels.cpu.simd import (
    BYTES,
    LANES,
    load,
    load_i64,
    load_part,
    store,
    store_i64,
    store_part,
)
from minigan_kernels.cpu.threads import threads

Array = npt.NDArray[Any]
Box = tuple[int, int, int, int]  # taps a .. a_end-1 x b .. b_end-1

_windows, _windows_4, _windows_2, _windows_1 = map(window_tile, (TALLEST, 4, 2, 1))
_gradient, _gradient_4, _gradient_2, _gradient_1 = map(gradient_tile, (TALLEST, 4, 2, 1))


@part
def windows_times_panel(W: int, w_s: int, K: int, S: int, B: int, C: int, rows: int) -> None:
    """C[i, :] = sum over s, k of W[s, i][k] B[s K + k, :] for at most TALLEST rows."""
    if rows == TALLEST:
        _windows(W, w_s, K, S, B, C)
        return
    while rows >= 4:
        _windows_4(W, w_s, K, S, B, C)
        W, C, rows = W + 8 * 4, C + 4 * PANEL_BYTES, rows - 4
    if rows >= 2:
        _windows_2(W, w_s, K, S, B, C)
        W, C, rows = W + 8 * 2, C + 2 * PANEL_BYTES, rows - 2
    if rows:
        _windows_1(W, w_s, K, S, B, C)


@part
def gradient_times_windows(
    A: int, a_k: int, K: int, W: int, column: int, C: int, rows: int
) -> None:
    """C[i, :] = sum over k of A[k, i] W[k][column + :] for at most TALLEST rows."""
    if rows == TALLEST:
        _gradient(A, a_k, K, W, column, C)
        return
    while rows >= 4:
        _gradient_4(A, a_k, K, W, column, C)
        A, C, rows = A + 4 * 4, C + 4 * PANEL_BYTES, rows - 4
    if rows >= 2:
        _gradient_2(A, a_k, K, W, column, C)
        A, C, rows = A + 4 * 2, C + 2 * PANEL_BYTES, rows - 2
    if rows:
        _gradient_1(A, a_k, K, W, column, C)


@part
def put(row: int, target: int, columns: int, add: bool) -> None:
    """Store the first `columns` numbers of a row of a tile, or add them to what is there."""
    for v in range(VECTORS):
        here, there, count = row + BYTES * v, target + BYTES * v, columns - LANES * v
        if count >= LANES:
            store(there, load(here) + load(there) if add else load(here))
        elif count > 0:
            row_end = load_part(here, count)
            store_part(there, row_end + load_part(there, count) if add else row_end, count)


pitch_of = part(pitch)


@part
def find_windows(
    x: int, table: int, phase: int, first: int, last: int, taps: Box, W: int, A: int
) -> None:
    """What results first .. last-1 see at taps a .. a_end-1 x b .. b_end-1: W[segment, result] is
    the address of a run of neighbouring taps. Runs that reach into the padding are copied to A."""
    a, a_end, b, b_end = taps
    height, width, channels = arg(table, HEIGHT), arg(table, WIDTH), arg(table, INPUTS)
    line, lines, step = arg(phase, LINE), arg(phase, LINES), arg(table, STEP_X)
    together = b_end - b if step == 1 else 1
    image, rest = first // (lines * line), first % (lines * line)
    i, j = rest // line, rest % line
    nothing = A
    zeros(nothing, together * channels)
    A += pitch_of(together * channels)
    for row in range(last - first):
        top = i * arg(table, MOVE_Y) + arg(phase, START_Y)
        left = j * arg(table, MOVE_X) + arg(phase, START_X)
        cell = W + 8 * row
        for tap_y in range(a, a_end):
            y = top + tap_y * arg(table, STEP_Y)
            for tap_x in range(b, b_end, together):
                at = left + tap_x * step
                before = min(max(-at, 0), together)
                after = min(max(at + together - width, 0), together - before)
                window = x + 4 * ((image * height + y) * width + at) * channels
                if y < 0 or y >= height or before + after == together:
                    window = nothing
                elif before + after > 0 or arg(table, COPY):
                    end = zeros(A, before * channels)
                    inside = (together - before - after) * channels
                    end = copy(end, window + 4 * before * channels, inside)
                    zeros(end, after * channels)
                    window = A
                    A += pitch_of(together * channels)
                store_i64(cell, window)
                cell += 8 * arg(table, BLOCK)
        j += 1
        if j == line:
            i, j = i + 1, 0
        if i == lines:
            image, i = image + 1, 0


@part
def find_places(y: int, table: int, phase: int, first: int, last: int, places: int) -> None:
    """Write the addresses of results first .. last-1 of a phase."""
    line, lines = arg(phase, LINE), arg(phase, LINES)
    y += arg(phase, Y_START)
    for row in range(first, last):
        i, j = row // line, row % line
        image, i = i // lines, i % lines
        place = y + image * arg(table, Y_IMAGE) + i * arg(table, Y_ROW) + j * arg(table, Y_PIXEL)
        store_i64(places + 8 * (row - first), place)


@part
def pack_panel(weight: int, table: int, phase: int, taps: Box, panel: int, B: int) -> None:
    """B[tap, input, 0 .. PANEL-1] from weight[output, tap, input], or weight[input, tap, output];
    zeros where there is no such output."""
    a, a_end, b, b_end = taps
    inputs, outputs, all_taps = arg(table, INPUTS), arg(table, OUTPUTS), arg(table, TAPS)
    first = panel * PANEL
    columns = min(PANEL, outputs - first)
    for tap_y in range(a, a_end):
        line = (arg(phase, TAP_Y) + tap_y * arg(table, TAP_STEP_Y)) * arg(table, KERNEL_WIDTH)
        for tap_x in range(b, b_end):
            tap = line + arg(phase, TAP_X) + tap_x * arg(table, TAP_STEP_X)
            if columns < PANEL:
                zeros(B, inputs * PANEL)
            if arg(table, OUTPUTS_FIRST):
                source = weight + 4 * (first * all_taps + tap) * inputs
                transposed(source, 4 * all_taps * inputs, B, PANEL_BYTES, columns, inputs)
            else:
                for c in range(inputs):
                    source = weight + 4 * ((c * all_taps + tap) * outputs + first)
                    put(source, B + c * PANEL_BYTES, columns, False)
            B += inputs * PANEL_BYTES


@kernel
def _pack(args: int, task: int, thread: int) -> None:
    """The whole weight as panels: one task per row of taps, phase and panel."""
    weight, packed, table = arg(args, 0), arg(args, 1), arg(args, 2)
    panels = -(-arg(table, OUTPUTS) // PANEL)
    a, panel = task // panels, task % panels
    phase = table + 8 * SHARED
    while a >= arg(phase, TAPS_Y):
        a -= arg(phase, TAPS_Y)
        phase += 8 * PHASE
    across = arg(phase, TAPS_X)
    first = panel * arg(phase, TAPS_Y) * across + a * across
    B = packed + arg(phase, PACKED) + first * arg(table, INPUTS) * PANEL_BYTES
    pack_panel(weight, table, phase, (a, a + 1, 0, across), panel, B)


@part
def _job(args: int, job: int, C: int) -> None:
    """Results first .. last-1 of a phase, in the channels of some panels."""
    x, weight, packed, y = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    table = arg(args, 4)
    phase = table + 8 * (SHARED + PHASE * arg(job, 0))
    first, last, first_panel, last_panel = arg(job, 1), arg(job, 2), arg(job, 3), arg(job, 4)
    block = 8 * arg(table, BLOCK)  # bytes of a line of W
    places = C + TILE_BYTES
    W = places + block
    A = C + arg(table, COPIES)
    own = C + arg(table, OWN_PANEL)
    find_places(y, table, phase, first, last, places)
    inputs, down, across = arg(table, INPUTS), arg(phase, TAPS_Y), arg(phase, TAPS_X)
    for a in range(0, down, arg(phase, TALL)):
        for b in range(0, across, arg(phase, BROAD)):
            taps = a, min(down, a + arg(phase, TALL)), b, min(across, b + arg(phase, BROAD))
            find_windows(x, table, phase, first, last, taps, W, A)
            K = inputs * (taps[3] - b if arg(table, STEP_X) == 1 else 1)
            segments = (taps[1] - a) * (taps[3] - b) * inputs // K
            for panel in range(first_panel, last_panel):
                B = own
                if packed:
                    step = panel * down * across + a * across + b
                    B = packed + arg(phase, PACKED) + step * inputs * PANEL_BYTES
                else:
                    pack_panel(weight, table, phase, taps, panel, B)
                columns = min(PANEL, arg(table, OUTPUTS) - panel * PANEL)
                for m in range(0, last - first, TALLEST):
                    rows = min(TALLEST, last - first - m)
                    windows_times_panel(W + 8 * m, block, K, segments, B, C, rows)
                    for row in range(rows):
                        place = load_i64(places + 8 * (m + row)) + panel * PANEL_BYTES
                        put(C + row * PANEL_BYTES, place, columns, a + b > 0)
    if down * across == 0:
        zeros(C, PANEL)
        for row in range(last - first):
            for panel in range(first_panel, last_panel):
                columns = min(PANEL, arg(table, OUTPUTS) - panel * PANEL)
                put(C, load_i64(places + 8 * row) + panel * PANEL_BYTES, columns, False)


@kernel
def _correlate(args: int, task: int, thread: int) -> None:
    """The jobs of a task; see `_job`."""
    starts = arg(args, 6)
    for job in range(arg(starts, task), arg(starts, task + 1)):
        _job(args, arg(args, 5) + 40 * job, arg(args, 7) + thread * arg(args, 8))


@kernel
def _weight_grad(args: int, task: int, thread: int) -> None:
    """Some outputs and taps of dw, summed over some positions, a block of them at a time."""
    x, g, dw, others = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    table, job = arg(args, 4), arg(args, 5) + 72 * task
    C = arg(args, 6) + thread * arg(args, 7)
    phase = table + 8 * SHARED
    taps = arg(job, 0), arg(job, 1), arg(job, 2), arg(job, 3)
    first, last, o_first, o_last = arg(job, 4), arg(job, 5), arg(job, 6), arg(job, 7)
    inputs, outputs, most = arg(table, INPUTS), arg(table, OUTPUTS), arg(table, BLOCK)
    width = arg(table, TAPS) * inputs
    if arg(job, 8):  # not the first chunk of positions
        dw = others + 4 * (arg(job, 8) - 1) * outputs * width
    W = C + TILE_BYTES
    A = C + arg(table, COPIES)
    together = taps[3] - taps[2] if arg(table, STEP_X) == 1 else 1
    for p in range(first, last, most):
        rows = min(most, last - p)
        find_windows(x, table, phase, p, p + rows, taps, W, A)
        for o in range(o_first, o_last, TALLEST):
            height = min(TALLEST, o_last - o)
            source = g + 4 * (p * outputs + o)
            windows = W
            for tap_y in range(taps[0], taps[1]):
                for tap_x in range(taps[2], taps[3], together):
                    start = (tap_y * arg(table, KERNEL_WIDTH) + tap_x) * inputs
                    for column in range(0, together * inputs, PANEL):
                        gradient_times_windows(
                            source, 4 * outputs, rows, windows, 4 * column, C, height
                        )
                        target = dw + 4 * (o * width + start + column)
                        count = min(PANEL, together * inputs - column)
                        for row in range(height):
                            put(C + row * PANEL_BYTES, target + 4 * row * width, count, p > first)
                    windows += 8 * most


@kernel
def _add_chunks(args: int, task: int, thread: int) -> None:
    """dw += every other chunk's sum, in order."""
    dw, others, count, chunks = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    for i in range(task * 4096, min(count, task * 4096 + 4096), PANEL):
        for chunk in range(chunks):
            put(others + 4 * (chunk * count + i), dw + 4 * i, min(PANEL, count - i), True)


def forward(x: Array, weight: Array, y: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """y[n,i,o] = sum over k, c of x[n, i s - p + k d, c] w[o,k,c]."""
    _correlation(forward_plan, x, weight, y, (stride, padding, dilation))


def transpose(
    g: Array, weight: Array, x: Array, stride: Pair, padding: Pair, dilation: Pair
) -> None:
    """x[n, i s - p + k d, c] = sum over i, k, o of g[n,i,o] w[o,k,c]."""
    _correlation(transpose_plan, g, weight, x, (stride, padding, dilation))


def weight_grad(x: Array, g: Array, dw: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """dw[o,k,c] = sum over n, i of g[n,i,o] x[n, i s - p + k d, c]."""
    if not g.size:
        dw[...] = 0
        return
    shapes = x.shape, dw.shape, g.shape
    with scratch() as space:
        plan, others, memory = _memory(space, weight_grad_plan, shapes, (stride, padding, dilation))
        arrays = x, g, dw, others, plan.table, plan.jobs, memory
        run(_weight_grad, len(plan.jobs), *arrays, plan.space)
        if plan.shared:
            run(_add_chunks, -(-dw.size // 4096), dw, others, dw.size, plan.shared // dw.size)


def _correlation(
    plans: Callable[..., Plan], x: Array, weight: Array, y: Array, options: tuple[Pair, Pair, Pair]
) -> None:
    if not y.size:
        return
    with scratch() as space:
        plan, packed, memory = _memory(space, plans, (x.shape, weight.shape, y.shape), options)
        run(_pack, plan.pack_tasks, weight, packed, plan.table)
        arrays = x, weight, packed if plan.shared else 0, y, plan.table, plan.jobs, plan.starts
        run(_correlate, len(plan.starts) - 1, *arrays, memory, plan.space)


def _memory(
    space: Space, plans: Callable[..., Plan], shapes: Any, options: tuple[Pair, Pair, Pair]
) -> tuple[Plan, Array, Array]:
    """The plan, or one with small blocks if there is no memory for it; the array that all threads
    share, and that of which each has a part."""
    for small in (False, True):
        plan = plans(shapes, *options, small)
        try:
            shared = space.array((plan.shared,))
            return plan, shared, space.array((threads(), plan.space), np.uint8)
        except MemoryError:
            if small:
                raise
    raise AssertionError("one of the two returns or raises")
