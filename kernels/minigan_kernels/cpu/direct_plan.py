"""How direct.py divides a convolution into tasks: from shapes to tables of numbers.

A plan depends on shapes and options only, so it is made once per layer. Its table tells the kernels
the geometry, in cells of eight bytes: SHARED cells for the whole call and PHASE cells for each
phase. A convolution has one phase; a transposed one has one for each place modulo the stride.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.microkernel import PANEL, PANEL_BYTES, TALLEST, VECTORS
from minigan_kernels.cpu.simd import BYTES

Array = npt.NDArray[Any]
Pair = tuple[int, int]
Shape = tuple[int, ...]

ROWS = 112 // TALLEST * TALLEST  # positions of a block
DEPTH = 1024  # numbers in a row of a block, if one tap has no more channels
FEW = 256  # up to so many positions every task packs its own weights
PIXELS = 256  # positions of a block of the weight gradient: the length of its sums
COLUMNS = 512  # numbers in a row of such a block
PIECE = 128  # outputs below which a task of the weight gradient is not divided further
PACKED_NUMBERS = 16 << 20  # of a packed weight; a larger one is packed in parts, again and again
CROWDED = 4096  # bytes: places that far apart compete in the first-level cache
TASKS = 16  # at least so many if there is enough work: then the threads end together

# Cells of the table: the geometry of the call ...
(HEIGHT, WIDTH, INPUTS, MOVE_Y, MOVE_X, STEP_Y, STEP_X) = range(7)  # what is read
(OUTPUTS, Y_IMAGE, Y_ROW, Y_PIXEL) = range(7, 11)  # where results go; in bytes
(TAPS, KERNEL_WIDTH, TAP_STEP_Y, TAP_STEP_X, OUTPUTS_FIRST) = range(11, 16)  # the weight
(BLOCK, COPY, COPIES, OWN_PANEL) = range(16, 20)  # working memory: see _workspace
SHARED = 20
# ... and of a phase, one row for each.
(TAPS_Y, TAPS_X, START_Y, START_X, LINES, LINE, Y_START, TAP_Y, TAP_X) = range(9)
(PACKED, TALL, BROAD) = range(9, 12)  # where its packed weight begins; taps gathered at a time
PHASE = 12


TILE_BYTES = TALLEST * PANEL_BYTES


class Plan(NamedTuple):
    table: Array
    jobs: Array
    starts: Array  # the first job of every task, and the end
    space: int  # bytes of working memory for each thread
    shared: int  # numbers of working memory for all: the packed weight, or sums of chunks
    pack_tasks: int = 0  # to pack the whole weight first; 0: every task packs what it needs


class Axis(NamedTuple):
    """One axis of a phase: tap t of result i reads input i move + start + t step. That is tap
    `first_tap` + t tap_step of the kernel; result i goes to place + i spread, for i < results."""

    results: int
    taps: int
    start: int
    place: int
    first_tap: int


class Moves(NamedTuple):
    """What the axes of all phases have in common, for y and x."""

    move: Pair
    step: Pair
    tap_step: Pair
    spread: Pair


@lru_cache(1024)
def forward_plan(
    shapes: tuple[Shape, Shape, Shape], stride: Pair, padding: Pair, dilation: Pair, small: bool
) -> Plan:
    """y from x: one phase with all taps. Shapes of x, weight (O,KH,KW,C) and y."""
    x, weight, y = shapes
    phase = _whole(weight, y, padding)
    moves = Moves(stride, dilation, (1, 1), (1, 1))
    return _correlation_plan(x, weight, y, moves, [phase], True, small)


@lru_cache(1024)
def transpose_plan(
    shapes: tuple[Shape, Shape, Shape], stride: Pair, padding: Pair, dilation: Pair, small: bool
) -> Plan:
    """x from g, by phases. Shapes of g, weight (O,KH,KW,C) and x."""
    g, weight, x = shapes
    (sy, sx), (dy, dx) = stride, dilation
    common_y, common_x = math.gcd(sy, dy), math.gcd(sx, dx)
    step = dy // common_y, dx // common_x
    moves = Moves((1, 1), step, (-(sy // common_y), -(sx // common_x)), stride)
    axes = zip(x[1:3], weight[1:3], stride, padding, dilation, strict=True)
    by_axis = itertools.starmap(_phases, axes)
    phases = [(y, x) for y, x in itertools.product(*by_axis)]
    return _correlation_plan(g, weight, x, moves, phases, False, small)


@lru_cache(1024)
def weight_grad_plan(
    shapes: tuple[Shape, Shape, Shape], stride: Pair, padding: Pair, dilation: Pair, small: bool
) -> Plan:
    """dw from x and g; shapes of x, dw and g. Jobs are (taps, positions, outputs, chunk).

    Chunks of positions, whose sums are added at the end, only where the rest gives too few tasks.
    """
    x, weight, g = shapes
    outputs, down, across, inputs = weight
    positions = math.prod(g[:3])
    tall, broad = _taps_at_a_time(down, across, inputs, 1 if small else COLUMNS)
    columns = tall * broad * inputs
    block = 1 if small else max(TALLEST, min(PIXELS, PIXELS * COLUMNS // columns, positions))
    boxes = [
        (a, min(a + tall, down), b, min(b + broad, across))
        for a in range(0, down, tall)
        for b in range(0, across, broad)
    ]
    pieces = max(1, min(-(-TASKS // len(boxes)), outputs // PIECE))
    chunks = 1 if small else min(-(-TASKS // (len(boxes) * pieces)), -(-positions // block))
    jobs = [
        (*box, *of_positions, *of_outputs, chunk)
        for chunk, of_positions in enumerate(_pieces(positions, chunks, 1))
        for of_outputs in _pieces(outputs, pieces, TALLEST)
        for box in boxes
    ]
    moves = Moves(stride, dilation, (1, 1), (1, 1))
    table = _table(x, weight, g, moves, [_whole(weight, g, padding)], True)
    run = columns // tall if dilation[1] == 1 else inputs
    segments = columns // run
    table[COPY] = run % PANEL != 0 or _crowded(table)  # tiles read whole panels
    space = _workspace(table, block, segments, segments, run, 0)
    starts = np.arange(len(jobs) + 1)
    return Plan(table, np.array(jobs), starts, space, (chunks - 1) * math.prod(weight))


def pitch(numbers: int) -> int:
    """Bytes that a copied run takes: an odd number of cache lines, so that the rows of a tile do
    not compete for the same few places in the first-level cache."""
    return ((-(-numbers // PANEL) * VECTORS) | 1) * BYTES


def _workspace(table: Array, block: int, rows: int, segments: int, run: int, own: int) -> int:
    """Divide the memory of a thread, in bytes: a tile of C; `rows` lines of `block` addresses;
    the copied runs; numbers of an own panel. Returns all of it."""
    copies = TILE_BYTES + -(-8 * block * rows // BYTES) * BYTES
    own_panel = copies + (1 + block * segments) * pitch(run) + BYTES
    table[BLOCK], table[COPIES], table[OWN_PANEL] = block, copies, own_panel
    return own_panel + 4 * own


def _crowded(table: Array) -> bool:
    """Whether neighbouring windows begin a large power of two apart: they are copied, for where
    they lie they would compete for the same few places in the caches."""
    return 4 * int(table[MOVE_X] * table[INPUTS]) % CROWDED == 0


def _correlation_plan(
    source: Shape,
    weight: Shape,
    result: Shape,
    moves: Moves,
    phases: Sequence[tuple[Axis, Axis]],
    outputs_first: bool,
    small: bool,
) -> Plan:
    """Jobs are (phase, results, panels of output channels).

    A task does a block of every phase: they read the same input and write neighbouring results.
    Or, where every task packs its own weights, it does all results of some panels of a phase.
    """
    table = _table(source, weight, result, moves, phases, outputs_first)
    panels = -(-result[3] // PANEL)
    positions = [source[0] * y.results * x.results for y, x in phases]
    few = max(positions) <= FEW
    large = panels * PANEL * source[3] * weight[1] * weight[2] > PACKED_NUMBERS
    alone = small or few or large  # every task packs the weights that it needs
    block = TALLEST if small else max(positions) if few else ROWS
    blocks = max(-(-max(positions) // block), 0 if alone else TASKS)
    groups = min(panels, -(-TASKS // (2 * len(phases)))) if alone and not small else 1
    per_phase = [
        [
            (number, *rows, *some)
            for rows in _pieces(n, blocks, TALLEST)
            for some in _pieces(panels, groups, 1)
        ]
        for number, n in enumerate(positions)
    ]
    tasks = [[job] for jobs in per_phase for job in jobs]
    if not alone:
        tasks = [[job for job in jobs if job] for jobs in itertools.zip_longest(*per_phase)]
    jobs = [job for task in tasks for job in task]
    starts = [0, *itertools.accumulate(map(len, tasks))]
    block = max(last - first for _, first, last, _, _ in jobs)
    packed, segments, run, deepest = _divide_taps(
        table, phases, 1 if small else min(DEPTH, ROWS * DEPTH // block)
    )
    table[COPY] = _crowded(table)
    space = _workspace(table, block, 1 + segments, segments, run, deepest * PANEL if alone else 0)
    pack_tasks = 0 if alone else panels * sum(y.taps for y, x in phases)
    return Plan(table, np.array(jobs), np.array(starts), space, 0 if alone else packed, pack_tasks)


def _divide_taps(
    table: Array, phases: Sequence[tuple[Axis, Axis]], depth: int
) -> tuple[int, int, int, int]:
    """Note for each phase how many of its taps are gathered at a time, about `depth` numbers.

    Returns the size of the packed weight, and the largest number of segments (runs of neighbouring
    taps), numbers in a run, and numbers in all runs that are gathered at a time.
    """
    inputs, panels = int(table[INPUTS]), -(-int(table[OUTPUTS]) // PANEL)
    packed, segments, run, deepest = 0, 1, 1, 1
    for number, (y, x) in enumerate(phases):
        tall, broad = _taps_at_a_time(y.taps, x.taps, inputs, depth)
        table[SHARED + PHASE * number :][PACKED : BROAD + 1] = 4 * packed, tall, broad
        together = broad if table[STEP_X] == 1 else 1
        segments = max(segments, tall * broad // together)
        run = max(run, together * inputs)
        deepest = max(deepest, tall * broad * inputs)
        packed += panels * y.taps * x.taps * inputs * PANEL
    return packed, segments, run, deepest


def _table(
    source: Shape,
    weight: Shape,
    result: Shape,
    moves: Moves,
    phases: Sequence[tuple[Axis, Axis]],
    outputs_first: bool,
) -> Array:
    """The table, without what depends on the blocks."""
    _, kernel_height, kernel_width, _ = weight
    _, y_height, y_width, outputs = result
    pixel = 4 * outputs
    row = y_width * pixel
    cells = [*source[1:], *moves.move, *moves.step]
    cells += [outputs, y_height * row, moves.spread[0] * row, moves.spread[1] * pixel]
    cells += [kernel_height * kernel_width, kernel_width, *moves.tap_step, outputs_first]
    cells += [0] * (SHARED - len(cells))
    for y, x in phases:
        cells += [y.taps, x.taps, y.start, x.start, y.results, x.results]
        cells += [y.place * row + x.place * pixel, y.first_tap, x.first_tap, 0, 0, 0]
    return np.array(cells, np.int64)


def _whole(weight: Shape, result: Shape, padding: Pair) -> tuple[Axis, Axis]:
    """The one phase of a convolution: all taps, all results."""
    return (
        Axis(result[1], weight[1], -padding[0], 0, 0),
        Axis(result[2], weight[2], -padding[1], 0, 0),
    )


def _phases(length: int, taps: int, s: int, p: int, d: int) -> list[Axis]:
    """Result o is met by the taps k with (o + p - k d) divisible by s.

    They come from input (o + p - k d) / s, and are the same for results that are a stride apart.
    The last one reads the lowest input, so they are taken backwards.
    """
    phases = []
    for place in range(min(s, length)):
        meet = [k for k in range(taps) if (place + p - k * d) % s == 0]
        last = meet[-1] if meet else 0
        results = -(-(length - place) // s)
        phases.append(Axis(results, len(meet), (place + p - last * d) // s, place, last))
    return phases


def _taps_at_a_time(down: int, across: int, inputs: int, depth: int) -> tuple[int, int]:
    """Rows of taps, and taps of a row, of at most `depth` numbers: whole rows if they fit."""
    if not down * across:
        return 1, 1
    if across * inputs <= depth:
        times = -(-down // (depth // (across * inputs)))
        return -(-down // times), across
    times = -(-across // max(1, depth // inputs))
    return 1, -(-across // times)


def _pieces(n: int, pieces: int, unit: int) -> Iterator[tuple[int, int]]:
    """Cut 0 .. n into nearly equal ranges of whole units; as many as asked for, or fewer."""
    units = -(-n // unit)
    pieces = max(1, min(pieces, units))
    for i in range(pieces):
        first, last = (j * units // pieces * unit for j in (i, i + 1))
        yield first, min(n, last)
