"""Maxima of windows. (Averages are one-axis maps: see `axis_map`.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.compiled import jit
from minigan_kernels.cpu.flat import least, put, take
from minigan_kernels.cpu.parallel import arg, kernel, part, run
from minigan_kernels.cpu.scratch import aligned
from minigan_kernels.cpu.simd import (
    BYTES,
    LANES,
    first_lanes,
    floats_of,
    load,
    load_i64,
    spread,
    spread_whole,
    store,
    where,
)
from minigan_kernels.reference.pool import pooled_length

Array = npt.NDArray[Any]

BLOCK = 1 << 12  # numbers of the result that a task makes, about


def max_pool(
    x: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """Largest element of each window and its flat spatial position (int32).

    Works and answers channels-last, so that whole rows of channels are compared. Runs over three
    spatial axes, missing ones of length 1.
    """
    options = list(zip(x.shape[2:], kernel_size, stride, padding, dilation, strict=True))
    out = tuple(pooled_length(n, k, s, p, d, ceil_mode) for n, k, s, p, d in options)
    options = [(1, 1, 1, 0, 1)] * (3 - len(options)) + options
    n, c = x.shape[:2]
    channels_last = (0, *range(2, x.ndim), 1)
    back = (0, x.ndim - 1, *range(1, x.ndim - 1))
    source = np.ascontiguousarray(x.transpose(channels_last))
    y, index = aligned((n, *out, c), x.dtype), aligned((n, *out, c), np.int32)
    wide = (n, *(1,) * (3 - len(out)), *out, c)
    table = np.array(options)
    if x.dtype == np.float32:
        places = y.size // c if c else 0
        each = max(1, BLOCK // max(c, 1))
        run(_max_of_windows, -(-places // each), source, y, index, table, places, *wide[1:], each)
    else:
        spatial = [option[0] for option in options]
        _max_pool(source.reshape(n, *spatial, c), table, y.reshape(wide), index.reshape(wide))
    return y.transpose(back), index.transpose(back)


@part
def _first(start: int, step: int) -> int:
    """The first tap of a window that lies inside: at start + tap * step >= 0."""
    return 0 if start >= 0 else (step - 1 - start) // step


@kernel
def _max_of_windows(args: int, task: int, thread: int) -> None:
    x, y, index, table = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    places, od, oh, ow, inner, each = (
        arg(args, 4),
        arg(args, 5),
        arg(args, 6),
        arg(args, 7),
        arg(args, 8),
        arg(args, 9),
    )
    depth, kd, sd, pd, dd = _axis(table, 0)
    height, kh, sh, ph, dh = _axis(table, 1)
    width, kw, sw, pw, dw = _axis(table, 2)
    for place in range(task * each, least(places, task * each + each)):
        # the window begins at (z, i, j), and its taps from (tz, ti, tj) on lie inside
        z, i, j = (
            place // (oh * ow) % od * sd - pd,
            place // ow % oh * sh - ph,
            place % ow * sw - pw,
        )
        tz, ti, tj = _first(z, dd), _first(i, dh), _first(j, dw)
        image = x + 4 * (place // (od * oh * ow)) * depth * height * width * inner
        c, first = 0, ((z + tz * dd) * height + i + ti * dh) * width + j + tj * dw
        while c < inner:
            m0 = m1 = m2 = m3 = spread(np.float32(-np.inf))
            i0 = i1 = i2 = i3 = spread_whole(first)
            left, four = inner - c, inner - c >= 4 * LANES
            for a in range(z + tz * dd, least(depth, z + kd * dd), dd):
                for b in range(i + ti * dh, least(height, i + kh * dh), dh):
                    for e in range(j + tj * dw, least(width, j + kw * dw), dw):
                        here = (a * height + b) * width + e
                        p, at = image + 4 * (here * inner + c), spread_whole(here)
                        m0, i0 = _larger(m0, i0, take(p, left), at)
                        if four:
                            m1, i1 = _larger(m1, i1, load(p + BYTES), at)
                            m2, i2 = _larger(m2, i2, load(p + 2 * BYTES), at)
                            m3, i3 = _larger(m3, i3, load(p + 3 * BYTES), at)
            to = 4 * (place * inner + c)
            put(y + to, m0, left)
            put(index + to, floats_of(i0), left)
            c += LANES
            if four:
                _store_three(y + to + BYTES, m1, m2, m3)
                _store_three(index + to + BYTES, floats_of(i1), floats_of(i2), floats_of(i3))
                c += 3 * LANES


@part
def _larger(best: Any, place: Any, v: Any, here: Any) -> Any:
    """The larger of two and its place: of equal ones the first, and the first NaN of all."""
    stays = where(best >= best, best >= v, first_lanes(LANES))
    return where(stays, best, v), where(stays, place, here)


@part
def _store_three(p: int, a: Any, b: Any, c: Any) -> None:
    store(p, a)
    store(p + BYTES, b)
    store(p + 2 * BYTES, c)


@part
def _axis(table: int, axis: int) -> Any:
    """Length, kernel size, stride, padding and dilation."""
    p = table + 40 * axis
    return load_i64(p), load_i64(p + 8), load_i64(p + 16), load_i64(p + 24), load_i64(p + 32)


@jit()
def _max_pool(x: Array, options: Array, y: Array, index: Array) -> None:
    (depth, kd, sd, pd, dd), (height, kh, sh, ph, dh), (width, kw, sw, pw, dw) = options
    outer, od, oh, ow, inner = y.shape
    for place in range(outer * od * oh * ow):
        a, oz, oy, ox = (
            place // (od * oh * ow),
            place // (oh * ow) % od,
            place // ow % oh,
            place % ow,
        )
        best, where = y[a, oz, oy, ox], index[a, oz, oy, ox]
        first = True
        for tap in range(kd * kh * kw):
            z = oz * sd - pd + tap // (kh * kw) * dd
            i = oy * sh - ph + tap // kw % kh * dh
            j = ox * sw - pw + tap % kw * dw
            if not (0 <= z < depth and 0 <= i < height and 0 <= j < width):
                continue
            position = (z * height + i) * width + j
            for b in range(inner):
                value = x[a, z, i, j, b]
                # a later NaN does not replace an earlier one: best != best holds only for NaN
                if first or value > best[b] or (value != value and best[b] == best[b]):
                    best[b], where[b] = value, position
            first = False
