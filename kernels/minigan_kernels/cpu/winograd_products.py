"""From points to pixels or taps: matrix products, and the transform of their results.

`multiply` takes one block of tiles and one panel of output channels. Chunk after chunk of the input
channels it transforms the weights of the panel into U [point][channel][panel], which never leaves
the second-level cache, and adds V U to M [point][tile][panel]; in the end it transforms M to
pixels. `correlate` does the same for the weight gradient, where tiles are what is summed over:
M [point][output][panel] = D^T V.
"""

from __future__ import annotations

from minigan_kernels.cpu.microkernel import PANEL, PANEL_BYTES, TALLEST, VECTORS, WIDE, tile
from minigan_kernels.cpu.pack import copy, transposed, zeros
from minigan_kernels.cpu.parallel import arg, kernel, part
from minigan_kernels.cpu.simd import BYTES, LANES, load, load_part, store, store_part
from minigan_kernels.cpu.winograd_lift import GAP, SUMS, TABLES, TAPS, TILE, place, transform

_rows_a = tile(TALLEST, VECTORS)
_rows_b = tile(8 if WIDE else 4, VECTORS)
_rows_c = tile(4 if WIDE else 3, VECTORS)
_rows_d = tile(2, VECTORS)
_rows_e = tile(1, VECTORS)
HEIGHT_B, HEIGHT_C = (8, 4) if WIDE else (4, 3)


@part
def product(
    rows: int, A: int, a_row: int, a_k: int, K: int, B: int, C: int, add: int, sums: int
) -> None:
    """C[rows, panel] (+)= A[rows, K] B[K, panel].

    K products are summed before they are added to C: so the rounding error of a long sum grows
    with the square roots of K and of the number of calls, not with that of their product.
    """
    while rows > 0:
        to = sums if add else C
        if rows >= TALLEST and rows != 2 * HEIGHT_B:
            _rows_a(A, a_row, a_k, K, 1, 0, B, PANEL_BYTES, to, PANEL_BYTES, 0)
            done = TALLEST
        elif rows >= HEIGHT_B:
            _rows_b(A, a_row, a_k, K, 1, 0, B, PANEL_BYTES, to, PANEL_BYTES, 0)
            done = HEIGHT_B
        elif rows >= HEIGHT_C:
            _rows_c(A, a_row, a_k, K, 1, 0, B, PANEL_BYTES, to, PANEL_BYTES, 0)
            done = HEIGHT_C
        elif rows >= 2:
            _rows_d(A, a_row, a_k, K, 1, 0, B, PANEL_BYTES, to, PANEL_BYTES, 0)
            done = 2
        else:
            _rows_e(A, a_row, a_k, K, 1, 0, B, PANEL_BYTES, to, PANEL_BYTES, 0)
            done = 1
        if add:
            for i in range(0, done * PANEL_BYTES, BYTES):
                store(C + i, load(C + i) + load(sums + i))
        A += done * a_row
        C += done * PANEL_BYTES
        rows -= done


@kernel
def multiply(args: int, task: int, thread: int) -> None:
    """Points and weights to pixels; one task per phase of the result, block of tiles and panel.

    `added` x `added` phases of the input are added up, `phases` x `phases` of the result stand
    side by side, and one of these numbers is 1. Arguments 12 to 24 are those of `_weights`, 25 to
    35 those of `_lower`.
    """
    v, tiles, block = arg(args, 0), arg(args, 1), arg(args, 2)
    chunk, chunks, C = arg(args, 3), arg(args, 4), arg(args, 5)
    added, phases, outputs = arg(args, 6), arg(args, 7), arg(args, 8)
    n, memory = arg(args, 9), arg(args, 10) + thread * arg(args, 11)
    panels, blocks = -(-outputs // PANEL), -(-tiles // block)
    o, b, phase = task % panels * PANEL, task // panels % blocks, task // panels // blocks
    count, lanes = min(block, tiles - b * block), min(PANEL, outputs - o)
    v_point, u_point = 4 * block * chunk + GAP, chunk * PANEL_BYTES + GAP
    m_point = block * PANEL_BYTES + GAP
    u = memory + TABLES
    m = u + n * n * u_point
    terms = added * added * chunks
    A = v + (b * phases * phases + phase) * terms * n * n * v_point
    for k in range(terms):
        part_of, c = k // chunks, k % chunks * chunk
        K = min(chunk, C - c)
        origin = (part_of // added + phase // phases, part_of % added + phase % phases)
        _weights(args + 8 * 12, origin, (c, K), (o, lanes), n, u, u_point, memory)
        for f in range(n * n):
            B, to = u + f * u_point, m + f * m_point
            product(count, A, 4 * chunk, 4, K, B, to, k > 0, memory + SUMS)
            A += v_point
    origin = (phase // phases, phase % phases)
    _lower(args + 8 * 25, phases, origin, b * block, count, (o, lanes), n, m, m_point, memory)


@part
def _weights(
    args: int,
    origin: tuple[int, int],
    inputs: tuple[int, int],
    outputs: tuple[int, int],
    n: int,
    u: int,
    point: int,
    memory: int,
) -> None:
    """Transform the weights of some input channels and a panel of outputs: (first, count) each.

    The weight of channel k and output o lies at k `k_step` + o `o_step`, one of which is 4 bytes.
    Tap (i, j) is the one at row top + `tap` i, column left + `tap` j, or zero if there is none;
    phase a begins at row (shift + a) mod `phases` + `last` and at the column likewise.
    """
    w, k_step, o_step = arg(args, 0), arg(args, 1), arg(args, 2)
    high, wide, r, tap = arg(args, 3), arg(args, 4), arg(args, 5), arg(args, 6)
    phases, last, pixel = arg(args, 9), arg(args, 10), arg(args, 11)
    top = (arg(args, 7) + origin[0]) % phases + last
    left = (arg(args, 8) + origin[1]) % phases + last
    bottom, right = top + tap * (r - 1), left + tap * (r - 1)
    complete = min(top, bottom) >= 0 and max(top, bottom) < high
    complete = complete and min(left, right) >= 0 and max(left, right) < wide
    w += inputs[0] * k_step + outputs[0] * o_step
    for half in range(VECTORS):
        lanes = min(LANES, outputs[1] - half * LANES)
        for k in range(0, inputs[1], LANES):
            count = min(LANES, inputs[1] - k)
            source = w + k * k_step + half * LANES * o_step
            if complete and o_step == 4 and lanes == LANES:  # as they lie
                source += (top * wide + left) * pixel
                steps = (tap * wide * pixel, tap * pixel, k_step)
            else:
                size = (lanes, count)
                _taps(memory + TAPS, source, k_step, o_step, size, args, top, left)
                source, steps = memory + TAPS, (r * LANES * BYTES, LANES * BYTES, BYTES)
            to = (n * point, point, PANEL_BYTES)
            result = u + k * PANEL_BYTES + half * BYTES
            transform(arg(args, 12), memory, count, source, steps, result, to)


@part
def _taps(
    target: int,
    source: int,
    k_step: int,
    o_step: int,
    size: tuple[int, int],
    args: int,
    top: int,
    left: int,
) -> None:  # taps [i][j][k][o] of sixteen k and o, zeros where there is no such tap or output
    high, wide, r, tap = arg(args, 3), arg(args, 4), arg(args, 5), arg(args, 6)
    lanes, count = size
    for i in range(r):
        for j in range(r):
            row, column = top + i * tap, left + j * tap
            exists = 0 <= row < high and 0 <= column < wide
            if lanes < LANES or not exists:
                zeros(target, LANES * LANES)
            if lanes > 0 and exists:
                here = source + (row * wide + column) * arg(args, 11)
                if o_step == 4:
                    for k in range(count):
                        copy(target + k * BYTES, here + k * k_step, lanes)
                else:
                    transposed(here, o_step, target, BYTES, lanes, count)
            target += LANES * BYTES


@part
def _lower(
    args: int,
    phases: int,
    origin: tuple[int, int],
    t: int,
    count: int,
    outputs: tuple[int, int],
    n: int,
    m: int,
    point: int,
    memory: int,
) -> None:
    """Points to the pixels of a phase, `phases` apart; what lies beyond the image is left out."""
    y, H, W, image_step = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    line, pixel, size = arg(args, 4), arg(args, 5), arg(args, 6)
    first, high, wide, function = arg(args, 7), arg(args, 8), arg(args, 9), arg(args, 10)
    y += origin[0] * line + origin[1] * pixel
    line, pixel = phases * line, phases * pixel
    H, W = -(-(H - origin[0]) // phases), -(-(W - origin[1]) // phases)
    at, at_steps = memory + TILE, (size * BYTES, BYTES, 0)
    steps = (n * point, point, BYTES)
    for i in range(count):
        image, row, column = place(first + t + i, high, wide)
        row, column = row * size, column * size
        to = y + image * image_step + row * line + column * pixel + 4 * outputs[0]
        source = m + i * PANEL_BYTES
        if outputs[1] == PANEL and row + size <= H and column + size <= W:
            transform(function, memory, VECTORS, source, steps, to, (line, pixel, BYTES))
            continue
        for half in range(-(-outputs[1] // LANES)):
            transform(function, memory, 1, source + half * BYTES, steps, at, at_steps)
            lanes = min(LANES, outputs[1] - half * LANES)
            for a in range(min(size, H - row)):
                for b in range(min(size, W - column)):
                    value = load(at + BYTES * (a * size + b))
                    store_part(to + half * BYTES + a * line + b * pixel, value, lanes)


@kernel
def correlate(args: int, task: int, thread: int) -> None:
    """Points of x and of g to taps of dw (O,KH,KW,C); one task per group of O and panel of C.

    V holds x in chunks of a panel, D holds g in chunks of `group` channels. The taps of phase
    (a, b) are those at rows a + `phases` i and columns b + `phases` j.
    """
    v, d, tiles, block = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    n, group, outputs, C = arg(args, 4), arg(args, 5), arg(args, 6), arg(args, 7)
    phases, memory = arg(args, 8), arg(args, 9) + thread * arg(args, 10)
    panels, groups = -(-C // PANEL), -(-outputs // group)
    columns = phases * phases * panels
    p, q = task % columns, task // columns
    rows = min(group, outputs - q * group)
    m, m_point = memory + TABLES, group * PANEL_BYTES + GAP
    d_point, v_point = 4 * block * group + GAP, block * PANEL_BYTES + GAP
    for b in range(-(-tiles // block)):
        K = min(block, tiles - b * block)
        A = d + (b * groups + q) * n * n * d_point
        B = v + (b * columns + p) * n * n * v_point
        for f in range(n * n):
            to = m + f * m_point
            product(rows, A, 4, 4 * group, K, B, to, b > 0, memory + SUMS)
            A += d_point
            B += v_point
    origin = (p // panels // phases, p // panels % phases)
    _add_taps(args + 8 * 11, (q * group, rows), p % panels * PANEL, origin, n, m, m_point, memory)


@part
def _add_taps(
    args: int,
    outputs: tuple[int, int],
    c: int,
    origin: tuple[int, int],
    n: int,
    m: int,
    point: int,
    memory: int,
) -> None:  # points to taps of some outputs and a panel of input channels; args as named below
    dw, high, wide, C = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    r, tap, add, function = arg(args, 4), arg(args, 5), arg(args, 6), arg(args, 7)
    at, at_steps = memory + TILE, (r * BYTES, BYTES, 0)
    for i in range(outputs[1]):
        for half in range(min(VECTORS, -(-(C - c) // LANES))):
            source = m + i * PANEL_BYTES + half * BYTES
            transform(function, memory, 1, source, (n * point, point, 0), at, at_steps)
            first = c + half * LANES
            lanes = min(LANES, C - first)
            for j in range(r * r):
                row, column = origin[0] + j // r * tap, origin[1] + j % r * tap
                if row < high and column < wide:
                    pixel = ((outputs[0] + i) * high + row) * wide + column
                    to = dw + 4 * (pixel * C + first)
                    value = load(at + BYTES * j)
                    if add:
                        value = value + load_part(to, lanes)
                    store_part(to, value, lanes)
