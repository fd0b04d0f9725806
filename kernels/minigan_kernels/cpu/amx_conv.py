"""Convolution and its transpose on the matrix unit, without a matrix of windows.

A tile of A is 16 results, a line of it the 32 channels that one of them reads under one tap. The
planes of the input (`amx_plan`) are stored with the channels cut into blocks of 32 and the images
of the batch innermost,

    planes  (part, plane, channels / 32, y, x, n, 32)  bfloat16

so that the results of a row of the image, in the order (x, n), read consecutive lines under every
tap: 16 results are one kilobyte wherever the tap points to, for any batch and width. The number of
lines of a tile is chosen such that a row is a whole number of them; the last overlaps otherwise.
A tile of B is 16 pairs of input channels x 16 output channels of the weight of one tap:

    packed  (output channels / 32, step, part, 2, 16, 16, 2)  bfloat16

where a step is a tap and a block of 32 channels, in the order in which the inner loop wants them.
Taps that see only the zeros around the image are skipped.
"""

from __future__ import annotations

from minigan_kernels.cpu.amx_plan import (
    BEGIN_X,
    BEGIN_Y,
    COLUMNS,
    END_X,
    END_Y,
    FIRST_X,
    FIRST_Y,
    PHASE_TAPS,
    PHASE_TAPS_BEFORE,
    PHASE_X,
    PHASE_Y,
    PLANE,
    ROWS,
    SHIFT_X,
    SHIFT_Y,
    TAPS_BEFORE,
    WIDTH,
)
from minigan_kernels.cpu.amx_split import (
    BLOCK,
    LINE,
    LOWER,
    SUMS_BYTES,
    TILE,
    numbers,
    products,
    split,
    split_pairs,
    store_block,
    zero_block,
)
from minigan_kernels.cpu.amx_tiles import TILES_BYTES, tileconfig, tilerelease
from minigan_kernels.cpu.parallel import arg, kernel, part
from minigan_kernels.cpu.simd import BYTES, LANES, load, store, store_part, transpose

ROOM = TILES_BYTES + SUMS_BYTES  # bytes of each thread: its tiles, and what it is working on


@kernel
def split_planes(args: int, task: int, thread: int) -> None:
    """Row `task % rows` of plane `task // rows`, in all parts."""
    x, planes, parts, part_bytes = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    N, H, W, C = arg(args, 4), arg(args, 5), arg(args, 6), arg(args, 7)
    rows, columns = arg(args, 8), arg(args, 9)
    planes_x, step_y, step_x = arg(args, 10), arg(args, 11), arg(args, 12)
    top, left = arg(args, 13), arg(args, 14)
    plane, row = task // rows, task % rows
    y = row * step_y + plane // planes_x - top
    blocks = -(-C // BLOCK)
    block_bytes = rows * columns * N * LINE
    to = planes + plane * blocks * block_bytes + row * columns * N * LINE
    for column in range(columns):
        u = column * step_x + plane % planes_x - left
        inside = 0 <= y < H and 0 <= u < W
        for n in range(N):
            source = x + 4 * C * ((n * H + y) * W + u)
            for block in range(blocks):
                there = C - BLOCK * block if inside else 0
                p = to + block * block_bytes
                at = source + 4 * BLOCK * block
                split(numbers(at, there), p, part_bytes, parts)
                split(numbers(at + BYTES, there - LANES), p + LINE // 2, part_bytes, parts)
            to += LINE


@part
def _step(entry: int, panel: int, panels: int, blocks: int) -> int:
    """Where the weights of an entry of the table begin in the packed ones, for a panel of 32."""
    taps = arg(entry, PHASE_TAPS_BEFORE) * panels + panel * arg(entry, PHASE_TAPS)
    return (taps + arg(entry, TAPS_BEFORE)) * blocks


@kernel
def pack_weights(args: int, task: int, thread: int) -> None:
    """Tiles of B of one entry, for one panel of 32 results and one block of 32 inputs.

    A weight is (O, taps, C). `transposed` says that O are the inputs and C the results.
    """
    weight, packed, parts, table = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    panels, blocks, first_panel = arg(args, 4), arg(args, 5), arg(args, 6)
    outputs, C, taps, width = arg(args, 7), arg(args, 8), arg(args, 9), arg(args, 10)
    step_y, step_x = arg(args, 11), arg(args, 12)
    transposed, room = arg(args, 13), arg(args, 14) + thread * ROOM
    block, panel = task % blocks, task // blocks % panels
    entry = table + 8 * WIDTH * (task // blocks // panels)
    rows, columns = arg(entry, ROWS), arg(entry, COLUMNS)
    to = packed + parts * 2 * TILE * (_step(entry, panel, panels, blocks) + block * rows * columns)
    for j in range(rows):
        for i in range(columns):
            tap = (arg(entry, FIRST_Y) + step_y * j) * width + arg(entry, FIRST_X) + step_x * i
            source = weight + 4 * C * tap
            for half in range(2):
                column = BLOCK * (first_panel + panel) + LANES * half
                p = to + TILE * half
                if transposed:
                    _tile_of_columns(source, outputs, C, taps, BLOCK * block, column, p, parts)
                else:
                    _tile_of_rows(source, outputs, C, taps, column, BLOCK * block, p, parts, room)
            to += parts * 2 * TILE


@part
def _tile_of_rows(
    source: int, outputs: int, C: int, taps: int, o: int, c: int, to: int, parts: int, room: int
) -> None:
    """16 outputs o, 32 inputs c: the pairs lie side by side and a transpose moves them."""
    for r in range(LANES):
        at = source + 4 * (C * taps * (o + r) + c)
        there = C - c if o + r < outputs else 0
        split(numbers(at, there), room + LINE * r, TILE, parts)
        split(numbers(at + BYTES, there - LANES), room + LINE * r + LINE // 2, TILE, parts)
    for q in range(parts):
        transpose(room + TILE * q, LINE, to + 2 * TILE * q, LINE)


@part
def _tile_of_columns(
    source: int, outputs: int, C: int, taps: int, o: int, c: int, to: int, parts: int
) -> None:
    """32 inputs o, 16 outputs c: pairs are made of two rows."""
    for r in range(LANES):
        at = source + 4 * (C * taps * (o + 2 * r) + c)
        u = numbers(at, C - c if o + 2 * r < outputs else 0)
        v = numbers(at + 4 * C * taps, C - c if o + 2 * r + 1 < outputs else 0)
        split_pairs(u, v, to + LINE * r, 2 * TILE, parts)


@kernel
def multiply(args: int, task: int, thread: int) -> None:
    """All results of some pairs of tiles, for some panels of 32 output channels.

    Results have `rows` rows of `columns` x N places, in each of the phases; a row is cut into
    `across` tiles of `high` places. Panels number the output channels of all phases.
    """
    panels, rows, across, high = arg(args, 7), arg(args, 8), arg(args, 10), arg(args, 11)
    phases, pairs_per_task, panels_per_task = arg(args, 12), arg(args, 13), arg(args, 14)
    tiles = arg(args, 26) + thread * ROOM
    tasks = -(-phases * panels // panels_per_task)
    count = rows * across
    first = task // tasks * pairs_per_task
    last = min(first + pairs_per_task, -(-count // 2))
    begin = task % tasks * panels_per_task
    tileconfig(tiles, high, 16)
    for panel in range(begin, min(begin + panels_per_task, phases * panels)):
        for pair in range(first, last):
            upper, lower = 2 * pair, min(2 * pair + 1, count - 1)
            zero_block(tiles)
            _sum_taps(args, tiles, panel // panels, panel % panels, upper, lower)
            store_block(tiles, tiles + TILES_BYTES)
            _write(args, tiles + TILES_BYTES, panel // panels, panel % panels, upper)
            if lower != upper:
                _write(args, tiles + TILES_BYTES + LOWER, panel // panels, panel % panels, lower)
    tilerelease(tiles)


@part
def _place(tile: int, places: int, across: int, high: int) -> int:
    """The first place, in its row, of a tile: the last tile of a row overlaps."""
    return min(tile % across * high, places - high)


@part
def _sum_taps(args: int, tiles: int, phase: int, panel: int, upper: int, lower: int) -> None:
    """Two tiles of results: the sum over the taps and input channels."""
    planes, packed, table = arg(args, 0), arg(args, 1), arg(args, 3)
    parts, a_part, blocks, panels = arg(args, 4), arg(args, 5), arg(args, 6), arg(args, 7)
    places, across, high, entries = arg(args, 9), arg(args, 10), arg(args, 11), arg(args, 15)
    N, first_row = arg(args, 16), arg(args, 19)
    line, row_bytes = N * LINE, N * LINE * arg(args, 18)
    block_bytes = arg(args, 17) * row_bytes
    b_step = parts * 2 * TILE
    y0, y1 = upper // across, lower // across
    p0, p1 = _place(upper, places, across, high), _place(lower, places, across, high)
    x0, x1 = min(p0, p1) // N, (max(p0, p1) + high - 1) // N
    for index in range(phase * entries, phase * entries + entries):
        entry = table + 8 * WIDTH * index
        columns = arg(entry, COLUMNS)
        shift_y, shift_x = arg(entry, SHIFT_Y), arg(entry, SHIFT_X)
        # Taps whose places are zeros for every one of these results are left out.
        j0 = max(0, arg(entry, BEGIN_Y) - first_row - shift_y - y1)
        j1 = min(arg(entry, ROWS), arg(entry, END_Y) - first_row - shift_y - y0)
        i0 = max(0, arg(entry, BEGIN_X) - shift_x - x1)
        i1 = min(columns, arg(entry, END_X) - shift_x - x0)
        plane = planes + arg(entry, PLANE) * blocks * block_bytes
        weights = packed + b_step * _step(entry, panel, panels, blocks)
        for block in range(blocks):
            for j in range(j0, j1):
                a = plane + block * block_bytes + (shift_y + j) * row_bytes + (shift_x + i0) * line
                a0, a1 = a + y0 * row_bytes + p0 * LINE, a + y1 * row_bytes + p1 * LINE
                b0 = weights + ((block * arg(entry, ROWS) + j) * columns + i0) * b_step
                b1, b_part, steps = b0 + TILE, 2 * TILE, i1 - i0
                products(tiles, parts, a0, a1, a_part, line, b0, b1, b_part, b_step, steps)


@part
def _write(args: int, sums: int, phase: int, panel: int, tile: int) -> None:
    """Copy the lines of a tile to their places in y, as far as these and the channels exist."""
    y, table = arg(args, 2), arg(args, 3)
    places, across, high, entries = arg(args, 9), arg(args, 10), arg(args, 11), arg(args, 15)
    N, first_row = arg(args, 16), arg(args, 19)
    H, W, outputs = arg(args, 20), arg(args, 21), arg(args, 22)
    step_y, step_x, first_panel = arg(args, 23), arg(args, 24), arg(args, 25)
    entry = table + 8 * WIDTH * phase * entries
    row = (tile // across + first_row) * step_y + arg(entry, PHASE_Y)
    begin = _place(tile, places, across, high)
    o = BLOCK * (first_panel + panel)
    if row >= H:
        return
    for place in range(tile % across * high, begin + high):
        column = place // N * step_x + arg(entry, PHASE_X)
        if column < W:
            to = y + 4 * (outputs * ((place % N * H + row) * W + column) + o)
            at = sums + 4 * BLOCK * (place - begin)
            _put(to, load(at), outputs - o)
            _put(to + BYTES, load(at + BYTES), outputs - o - LANES)


@part
def _put(p: int, v: object, count: int) -> None:
    if count >= LANES:
        store(p, v)
    elif count > 0:
        store_part(p, v, count)
