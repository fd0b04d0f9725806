"""The threaded kernel of the gradient of normalisation (float32): see `norm_kernels`.

With h the gradient at z (g through the activation, times the map if there is one),

    prepare   as there, with the statistics that are known
    measure   of a plane in a chunk:   sum h,  sum h (x - center)
    finish    of a plane:              tilt, lift; and dscale, dshift
    apply     dx = h factor + (x - center) tilt + lift
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan_kernels.cpu.flat import least, put, take
from minigan_kernels.cpu.norm_kernels import (
    AFFINE_TASKS,
    AFTER,
    AMONG,
    BASE,
    CENTER,
    CHUNKS,
    COUNT,
    DSCALE,
    DSHIFT,
    FACTOR,
    FEW,
    FINISH_TASKS,
    GROUP,
    LIFT,
    MAP_P,
    MAPPED,
    OFFSET,
    OUT,
    PERIOD,
    SCALE,
    SHIFT,
    SLOPE,
    SUMS,
    TASKS,
    TILT,
    G,
    P,
    Q,
    R,
    X,
    bend,
    constant,
    joined_sums,
    lanes_of,
    modulated,
    moved,
    prepare,
    row_at,
    rows_of_a_map,
    scale_of,
    statistics,
    strips_from,
    task_range,
)
from minigan_kernels.cpu.parallel import arg, kernel, part, real
from minigan_kernels.cpu.simd import (
    BYTES,
    LANES,
    fma,
    narrow,
    spread,
    store_f64,
    store_f64s_part,
    total,
    widen,
)

_F = np.float32


@part
def _sums(a: int, at: int, row: int, step: int, rows: int, left: int) -> Any:
    """Sums of h and h (x - center) down the rows, sixteen columns from byte `at` on."""
    one, slope = arg(a, Q) == 1, real(a, SLOPE)
    pitch = row_at(a, 1, 0) - row_at(a, 0, 0)
    center = constant(row + CENTER * pitch, left, one)
    factor = constant(row + FACTOR * pitch, left, one)
    offset = constant(row + OFFSET * pitch, left, one)
    x, g = arg(a, X) + at, arg(a, G) + at
    s, q = spread(0.0), spread(0.0)
    while rows > 0:
        n = least(rows, GROUP)
        s_group, q_group = spread(_F(0)), spread(_F(0))
        for _ in range(n):
            u = take(x, left) - center
            h = bend(take(g, left), fma(u, factor, offset), slope)
            s_group, q_group = s_group + h, fma(h, u, q_group)
            x += step
            g += step
        s, q = s + widen(s_group), q + widen(q_group)
        rows -= n
    return s, q


@part
def _map_sums(a: int, at: int, on_map: int, row: int, step: int, rows: int, left: int) -> Any:
    """The same under a map, which gets dscale = g bend' x^ and dshift = g bend' on the way."""
    one, slope, base = arg(a, Q) == 1, real(a, SLOPE), spread(_F(real(a, BASE)))
    pitch = row_at(a, 1, 0) - row_at(a, 0, 0)
    center = constant(row + CENTER * pitch, left, one)
    factor = constant(row + FACTOR * pitch, left, one)
    offset = constant(row + OFFSET * pitch, left, one)
    x, g = arg(a, X) + at, arg(a, G) + at
    scale, shift = arg(a, SCALE) + on_map, moved(arg(a, SHIFT), on_map)
    dscale, dshift = moved(arg(a, DSCALE), on_map), moved(arg(a, DSHIFT), on_map)
    s, q = spread(0.0), spread(0.0)
    o = 0
    while rows > 0:
        n = least(rows, GROUP)
        s_group, q_group = spread(_F(0)), spread(_F(0))
        for _ in range(n):
            u = take(x + o, left) - center
            xhat, by = fma(u, factor, offset), base + take(scale + o, left)
            h = bend(take(g + o, left), modulated(xhat, by, moved(shift, o), left), slope)
            if dscale != 0:
                put(dscale + o, h * xhat, left)
            if dshift != 0:
                put(dshift + o, h, left)
            h = h * by
            s_group, q_group = s_group + h, fma(h, u, q_group)
            o += step
        s, q = s + widen(s_group), q + widen(q_group)
        rows -= n
    return s, q


@part
def _column_sums(a: int, p: int, r: int, c: int, step: int, rows: int, left: int) -> Any:
    """The sums from row r of p, column c, on."""
    at = 4 * ((p * arg(a, R) + r) * arg(a, Q) + c)
    row = row_at(a, 0, p * arg(a, Q) + c)
    if arg(a, MAPPED) != 0:
        on_map = 4 * (p * arg(a, MAP_P) + r * arg(a, Q) + c)
        return _map_sums(a, at, on_map, row, step, rows, left)
    return _sums(a, at, row, step, rows, left)


@part
def _measure(a: int, task: int) -> None:
    """Sums of h and h (x - center) of the planes of one chunk."""
    width, planes = arg(a, Q), arg(a, P) * arg(a, Q)
    p_first, p_last, first, last = task_range(a, task)
    rows = last - first
    for p in range(p_first, p_last):
        out = arg(a, SUMS) + 8 * (2 * (task % arg(a, CHUNKS)) * planes + p * width)
        if width == 1:
            s, q = _column_sums(a, p, first, 0, BYTES, rows // LANES, LANES)
            rest = rows % LANES
            s_rest, q_rest = _column_sums(a, p, last - rest, 0, BYTES, least(rest, 1), rest)
            store_f64(out, total(s + s_rest))
            store_f64(out + 8 * planes, total(q + q_rest))
        else:
            for c in range(0, width, LANES):
                s, q = _column_sums(a, p, first, c, 4 * width, rows, width - c)
                store_f64s_part(out + 8 * c, s, width - c)
                store_f64s_part(out + 8 * (planes + c), q, width - c)


@part
def _about_mean(a: int, plane: int, left: int, mean: Any) -> Any:
    """Of some planes: sum h, sum h (x - mean), and center - mean."""
    s, q = joined_sums(a, plane, left)
    rounding = widen(take(row_at(a, CENTER, plane), left)) - mean
    return s, fma(rounding, s, q), rounding


@part
def _finish_dx(a: int, task: int) -> None:
    """TILT and LIFT of dx = rstd (h - E[h] - x^ E[h x^])."""
    after = arg(a, AFTER)
    blocks = -(-after // FEW)
    before, begin = task // blocks, task % blocks * FEW
    for i in range(begin, least(after, begin + FEW), LANES):
        first = before * arg(a, AMONG) * after + i
        strips, apart, left = strips_from(a, i)
        mean, rstd = statistics(a, before * after + i, left)
        h, hx = spread(0.0), spread(0.0)
        for j in range(strips):
            plane, lanes = first + j * apart, lanes_of(a, j, left)
            s, q, _ = _about_mean(a, plane, lanes, mean)
            scale = scale_of(a, plane, lanes)
            h, hx = fma(scale, s, h), fma(scale, q, hx)
        if after == 1:
            h, hx = spread(total(h)), spread(total(hx))
        share = rstd * spread(-1 / real(a, COUNT))
        tilt = rstd * rstd * share * hx
        for j in range(strips):
            plane, lanes = first + j * apart, lanes_of(a, j, left)
            rounding = widen(take(row_at(a, CENTER, plane), lanes)) - mean
            put(row_at(a, TILT, plane), narrow(tilt), lanes)
            put(row_at(a, LIFT, plane), narrow(fma(tilt, rounding, share * h)), lanes)


@part
def _finish_affine(a: int, task: int) -> None:
    """dscale = sum g x^ and dshift = sum g over the planes that share a scale."""
    after, among, period = arg(a, AFTER), arg(a, AMONG), arg(a, PERIOD)
    run = among if after == 1 else after  # planes whose lanes go together
    blocks = -(-run // FEW)
    begin, end = task % blocks * FEW, least(run, (task % blocks + 1) * FEW)
    for i in range(begin, end, LANES):
        left = run - i
        dscale, dshift = spread(0.0), spread(0.0)
        for first in range(task // blocks * run, arg(a, P) * arg(a, Q), period):
            number = first // run
            number = number if after == 1 else number // among * after + i
            mean, rstd = statistics(a, number, left)
            s, q, _ = _about_mean(a, first + i, left, mean)
            dscale, dshift = fma(rstd, q, dscale), dshift + s
        out = 4 * (task // blocks * run + i)
        if arg(a, DSCALE) != 0:
            put(arg(a, DSCALE) + out, narrow(dscale), left)
        if arg(a, DSHIFT) != 0:
            put(arg(a, DSHIFT) + out, narrow(dshift), left)


@part
def _apply(a: int, task: int) -> None:
    """dx = h factor + (x - center) tilt + lift of one chunk."""
    one, slope, base = arg(a, Q) == 1, real(a, SLOPE), spread(_F(real(a, BASE)))
    p_first, p_last, first, last = task_range(a, task)
    lines, width = (1, last - first) if one else (last - first, arg(a, Q))
    pitch, mapped = row_at(a, 1, 0) - row_at(a, 0, 0), arg(a, MAPPED) != 0
    for p in range(p_first, p_last):
        at = 4 * (p * arg(a, R) + first) * arg(a, Q)
        on_map = 4 * (p * arg(a, MAP_P) + first * arg(a, Q))
        x, g, dx = arg(a, X) + at, arg(a, G) + at, arg(a, OUT) + at
        scale, shift = arg(a, SCALE) + on_map, moved(arg(a, SHIFT), on_map)
        planes = row_at(a, 0, p * arg(a, Q))
        for r in range(lines):
            for c in range(0, width, LANES):
                o, left = 4 * (r * width + c), width - c
                row = planes + (0 if one else 4 * c)
                u = take(x + o, left) - constant(row + CENTER * pitch, left, one)
                factor = constant(row + FACTOR * pitch, left, one)
                z = fma(u, factor, constant(row + OFFSET * pitch, left, one))
                if not mapped:
                    h = bend(take(g + o, left), z, slope)
                else:
                    by = base + take(scale + o, left)
                    h = bend(take(g + o, left), modulated(z, by, moved(shift, o), left), slope) * by
                tilt = constant(row + TILT * pitch, left, one)
                lift = constant(row + LIFT * pitch, left, one)
                put(dx + o, fma(h, factor, fma(u, tilt, lift)), left)


@kernel
def differentiate(args: int, task: int, thread: int) -> None:
    """The steps prepare, measure, finish (dx, dscale and dshift) and apply; see `normalise`."""
    a, together = arg(args, 0), arg(args, 1)
    prepared = arg(a, FINISH_TASKS)
    measured = prepared + arg(a, TASKS)
    finished = measured + prepared + arg(a, AFFINE_TASKS)
    for each in range(task * together, (task + 1) * together):
        if each < prepared:
            prepare(a, each, True)
        elif each < measured:
            _measure(a, each - prepared)
        elif each < measured + prepared:
            _finish_dx(a, each - measured)
        elif each < finished:
            _finish_affine(a, each - measured - prepared)
        else:
            _apply(a, each - finished)


@kernel
def sum_maps(args: int, task: int, thread: int) -> None:
    """dscale = sum g bend' x^ and dshift = sum g bend' over p, for a map that all p share."""
    a = arg(args, 0)
    one, slope, base = arg(a, Q) == 1, real(a, SLOPE), spread(_F(real(a, BASE)))
    rows = rows_of_a_map(arg(a, Q))
    first, last = task * rows, least(arg(a, R), (task + 1) * rows)
    lines, width = (1, last - first) if one else (last - first, arg(a, Q))
    pitch = row_at(a, 1, 0) - row_at(a, 0, 0)
    for r in range(lines):
        for c in range(0, width, LANES):
            o, left = 4 * ((first + r) * arg(a, Q) + c), width - c
            by = base + take(arg(a, SCALE) + o, left)
            dscale, dshift = spread(0.0), spread(0.0)
            for p in range(arg(a, P)):
                at = o + 4 * p * arg(a, R) * arg(a, Q)
                row = row_at(a, 0, p * arg(a, Q) + (0 if one else c))
                u = take(arg(a, X) + at, left) - constant(row + CENTER * pitch, left, one)
                factor = constant(row + FACTOR * pitch, left, one)
                xhat = fma(u, factor, constant(row + OFFSET * pitch, left, one))
                z = modulated(xhat, by, moved(arg(a, SHIFT), o), left)
                h = bend(take(arg(a, G) + at, left), z, slope)
                dscale, dshift = fma(widen(h), widen(xhat), dscale), dshift + widen(h)
            if arg(a, DSCALE) != 0:
                put(arg(a, DSCALE) + o, narrow(dscale), left)
            if arg(a, DSHIFT) != 0:
                put(arg(a, DSHIFT) + o, narrow(dshift), left)
