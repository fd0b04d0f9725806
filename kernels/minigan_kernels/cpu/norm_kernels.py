"""The threaded kernel of normalisation (float32); `norm_threaded` prepares its arguments.

It sees P x R x Q numbers (see `planes`) and cuts them into chunks of some rows r of some p.
Normalising takes three steps,

    measure   of a plane (p,q) in a chunk:   sum x,  sum x^2
    prepare   of a statistic:                mean, rstd; of its planes: center, factor, offset
    apply     y = bend((x - center) factor + offset)

and the gradient the same three with the sums of h and h (x - center). `bend` is the activation:
z where z > 0, else slope z. Its input is not kept: the gradient computes it again from x, with
the same instructions, so both see the same sign.

Scale and shift are one number for each plane, or maps: arrays like x, or like one p of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan_kernels.cpu.flat import least, put, take
from minigan_kernels.cpu.parallel import arg, kernel, part, real
from minigan_kernels.cpu.simd import (
    BYTES,
    LANES,
    fma,
    load_f32,
    load_f64,
    load_f64s_part,
    narrow,
    spread,
    sqrt,
    store_f64,
    store_f64s_part,
    total,
    where,
    widen,
)

_F = np.float32

# The first argument of the kernels is the address of a block of cells: arrays, sizes and float64.
X, G, OUT, SCALE, SHIFT, MEAN, RSTD, DSCALE, DSHIFT, SUMS, ROWS = range(11)
P, R, Q, P_CHUNK, R_CHUNK, CHUNKS, BEFORE, AMONG, AFTER, PERIOD, MAPPED, MAP_P = range(11, 23)
TASKS, FINISH_TASKS, AFFINE_TASKS = range(23, 26)
COUNT, EPS, SLOPE, BASE = range(26, 30)
CELLS = 32

# Rows of numbers that planes have. y = (x - CENTER) FACTOR + OFFSET,
# dx = h FACTOR + (x - CENTER) TILT + LIFT.
CENTER, FACTOR, OFFSET, TILT, LIFT = range(5)

GROUP = 32  # rows that are summed in float32
FEW = 256  # planes of a task of `prepare`


@part
def bend(v: Any, z: Any, slope: float) -> Any:
    """v where z > 0 or z is NaN, else slope v; a slope of 0 makes 0 even of infinity."""
    if slope == 1:
        return v
    zero = spread(_F(0))
    low = zero if slope == 0 else v * spread(_F(slope))
    return where(z <= zero, low, v)


@part
def task_range(a: int, task: int) -> Any:
    """A task as a range of p and a range of rows."""
    block, chunk = task // arg(a, CHUNKS), task % arg(a, CHUNKS)
    p, r = block * arg(a, P_CHUNK), chunk * arg(a, R_CHUNK)
    return p, least(arg(a, P), p + arg(a, P_CHUNK)), r, least(arg(a, R), r + arg(a, R_CHUNK))


@part
def row_at(a: int, which: int, plane: int) -> int:
    """Address of the number that a plane has in row `which`."""
    pitch = -(-arg(a, P) * arg(a, Q) // LANES) * BYTES  # whole vectors
    return arg(a, ROWS) + which * pitch + 4 * plane


@part
def constant(row: int, left: int, one: bool) -> Any:
    """The numbers of the planes that the lanes are in; `one` if all are in one plane (Q = 1)."""
    if one:
        return spread(load_f32(row))
    return take(row, left)


@part
def modulated(xhat: Any, by: Any, shift: int, left: int) -> Any:
    """z = x^ by + shift, both from maps; without the shift if that is 0."""
    if shift == 0:
        return xhat * by
    return fma(xhat, by, take(shift, left))


@part
def moved(address: int, by: int) -> int:
    """An address further on; 0, which means nothing, stays."""
    return address + by if address != 0 else 0


@part
def rows_of_a_map(width: int) -> int:
    """Rows of a task of `sum_maps`."""
    return -(-512 // width)


# Sums ------------------------------------------------------------------------------------------


@part
def _sums(x: int, step: int, rows: int, left: int) -> Any:
    """Sums of x and x^2 down the rows, in float64, where E[x^2] - E[x]^2 is safe for float32 x.

    Each group of rows is summed in float32 as differences from its first row p:
    sum x = sum (x - p) + n p,   sum x^2 = sum (x - p)^2 + 2 p sum (x - p) + n p^2.
    """
    s, q = spread(0.0), spread(0.0)
    while rows > 0:
        n = least(rows, GROUP)
        first = take(x, left)
        s0, s1, q0, q1 = spread(_F(0)), spread(_F(0)), spread(_F(0)), spread(_F(0))
        for _ in range(n // 2):
            u, v = take(x, left) - first, take(x + step, left) - first
            s0, s1, q0, q1 = s0 + u, s1 + v, fma(u, u, q0), fma(v, v, q1)
            x += 2 * step
        if n % 2:
            u = take(x, left) - first
            s0, q0 = s0 + u, fma(u, u, q0)
            x += step
        p, part_s = widen(first), widen(s0 + s1)
        with_p = fma(p, spread(np.float64(n)), part_s)
        s = s + with_p
        q = q + fma(p, part_s + with_p, widen(q0 + q1))
        rows -= n
    return s, q


@part
def _measure(a: int, task: int) -> None:
    """Sums of x and x^2 of the planes of one chunk."""
    width, planes = arg(a, Q), arg(a, P) * arg(a, Q)
    p_first, p_last, first, last = task_range(a, task)
    rows = last - first
    for p in range(p_first, p_last):
        x = arg(a, X) + 4 * (p * arg(a, R) + first) * width
        out = arg(a, SUMS) + 8 * (2 * (task % arg(a, CHUNKS)) * planes + p * width)
        if width == 1:
            s, q = _sums(x, BYTES, rows // LANES, LANES)
            rest = rows % LANES
            s_rest, q_rest = _sums(x + 4 * (rows - rest), BYTES, least(rest, 1), rest)
            store_f64(out, total(s + s_rest))
            store_f64(out + 8 * planes, total(q + q_rest))
        else:
            for c in range(0, width, LANES):
                s, q = _sums(x + 4 * c, 4 * width, rows, width - c)
                store_f64s_part(out + 8 * c, s, width - c)
                store_f64s_part(out + 8 * (planes + c), q, width - c)


@part
def joined_sums(a: int, plane: int, left: int) -> Any:
    """Both sums of some planes over all chunks."""
    s, q = spread(0.0), spread(0.0)
    size = 8 * arg(a, P) * arg(a, Q)
    cell = arg(a, SUMS) + 8 * plane
    for _ in range(arg(a, CHUNKS)):
        s = s + load_f64s_part(cell, left)
        q = q + load_f64s_part(cell + size, left)
        cell += 2 * size
    return s, q


# Statistics ------------------------------------------------------------------------------------
#
# Planes are numbered as before x among x after; a statistic joins those that differ in `among`
# only. Lanes are neighbouring planes: of sixteen statistics, or of one if after = 1.


@part
def strips_from(a: int, i: int) -> Any:
    """Of the statistics from i on: how many strips of planes, how far apart, how many lanes."""
    if arg(a, AFTER) == 1:
        return -(-arg(a, AMONG) // LANES), LANES, arg(a, AMONG)
    return arg(a, AMONG), arg(a, AFTER), arg(a, AFTER) - i


@part
def lanes_of(a: int, strip: int, left: int) -> int:
    """Lanes of a strip."""
    return left - strip * LANES if arg(a, AFTER) == 1 else left


@part
def statistics(a: int, i: int, left: int) -> Any:
    """mean and rstd that belong to the lanes."""
    mean, rstd = arg(a, MEAN) + 8 * i, arg(a, RSTD) + 8 * i
    if arg(a, AFTER) == 1:
        return spread(load_f64(mean)), spread(load_f64(rstd))
    return load_f64s_part(mean, left), load_f64s_part(rstd, left)


@part
def affine(a: int, which: int, plane: int, left: int) -> Any:
    """Scale or shift of some planes."""
    return widen(take(arg(a, which) + 4 * (plane % arg(a, PERIOD)), left))


@part
def scale_of(a: int, plane: int, left: int) -> Any:
    """base + scale of some planes; 1 if there is no scale or a map."""
    if arg(a, SCALE) == 0 or arg(a, MAPPED) != 0:
        return spread(1.0)
    return affine(a, SCALE, plane, left) + spread(real(a, BASE))


@part
def _write_rows(a: int, plane: int, left: int, mean: Any, rstd: Any) -> None:
    """CENTER, FACTOR and OFFSET of some planes; OFFSET also mends the rounding of the mean."""
    center = narrow(mean)
    factor = rstd * scale_of(a, plane, left)
    offset = (widen(center) - mean) * factor
    if arg(a, SHIFT) != 0 and arg(a, MAPPED) == 0:
        offset = offset + affine(a, SHIFT, plane, left)
    put(row_at(a, CENTER, plane), center, left)
    put(row_at(a, FACTOR, plane), narrow(factor), left)
    put(row_at(a, OFFSET, plane), narrow(offset), left)


@part
def prepare(a: int, task: int, known: bool) -> None:
    """Statistics from the sums unless they are known, and the rows of the planes from them."""
    after = arg(a, AFTER)
    blocks = -(-after // FEW)
    before, begin = task // blocks, task % blocks * FEW
    for i in range(begin, least(after, begin + FEW), LANES):
        number = before * after + i  # of the first statistic
        first = before * arg(a, AMONG) * after + i
        strips, apart, left = strips_from(a, i)
        if not known:
            s, q = spread(0.0), spread(0.0)
            for j in range(strips):
                s_of, q_of = joined_sums(a, first + j * apart, lanes_of(a, j, left))
                s, q = s + s_of, q + q_of
            if after == 1:
                s, q = spread(total(s)), spread(total(q))
            share = spread(1 / real(a, COUNT))
            mean = s * share
            variance = q * share - mean * mean
            variance = where(variance < spread(0.0), spread(0.0), variance)
            rstd = spread(1.0) / sqrt(variance + spread(real(a, EPS)))
            store_f64s_part(arg(a, MEAN) + 8 * number, mean, least(left, after))
            store_f64s_part(arg(a, RSTD) + 8 * number, rstd, least(left, after))
        else:
            mean, rstd = statistics(a, number, left)
        for j in range(strips):
            _write_rows(a, first + j * apart, lanes_of(a, j, left), mean, rstd)


@part
def _apply(a: int, task: int) -> None:
    """y = bend((x - center) factor + offset) of one chunk; with maps, scaled and shifted."""
    one, slope, base = arg(a, Q) == 1, real(a, SLOPE), spread(_F(real(a, BASE)))
    p_first, p_last, first, last = task_range(a, task)
    lines, width = (1, last - first) if one else (last - first, arg(a, Q))
    pitch, mapped = row_at(a, 1, 0) - row_at(a, 0, 0), arg(a, MAPPED) != 0
    for p in range(p_first, p_last):
        at = 4 * (p * arg(a, R) + first) * arg(a, Q)
        on_map = 4 * (p * arg(a, MAP_P) + first * arg(a, Q))
        x, y = arg(a, X) + at, arg(a, OUT) + at
        scale, shift = arg(a, SCALE) + on_map, moved(arg(a, SHIFT), on_map)
        planes = row_at(a, 0, p * arg(a, Q))
        for r in range(lines):
            for c in range(0, width, LANES):
                o, left = 4 * (r * width + c), width - c
                row = planes + (0 if one else 4 * c)
                u = take(x + o, left) - constant(row + CENTER * pitch, left, one)
                factor = constant(row + FACTOR * pitch, left, one)
                z = fma(u, factor, constant(row + OFFSET * pitch, left, one))
                if mapped:
                    z = modulated(z, base + take(scale + o, left), moved(shift, o), left)
                put(y + o, bend(z, z, slope), left)


@kernel
def normalise(args: int, task: int, thread: int) -> None:
    """The steps measure, prepare and apply; a task may be several neighbouring ones."""
    a, together = arg(args, 0), arg(args, 1)
    tasks, prepared = arg(a, TASKS), arg(a, FINISH_TASKS)
    for each in range(task * together, (task + 1) * together):
        if each < tasks:
            _measure(a, each)
        elif each < tasks + prepared:
            prepare(a, each - tasks, False)
        else:
            _apply(a, each - tasks - prepared)
