"""Attention of float32 by threaded kernels: blocks of queries, each with all of its keys.

    S = scale Q K^T + bias,   P = softmax(S),   Y = P V

A task is a block of queries of one batch entry, so few that their scores stay in the second-level
cache: two products by the microkernel with a softmax of rows in between. K^T and V are packed into
panels once, for all queries.

Backward, a task is a run of such blocks. With G the gradient of Y it finds P again, and

    dP = G V^T,   dS = P (dP - sum of P dP over keys) scale,
    dQ = dS K,   dK += dS^T Q,   dV += P^T G.

The tasks of one entry each have sums dK and dV of their own, which are added in order at the end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.flat import least, put, take
from minigan_kernels.cpu.matmul import pack
from minigan_kernels.cpu.microkernel import PANEL, PANEL_BYTES, TALLEST
from minigan_kernels.cpu.parallel import address, arg, kernel, part, real, run
from minigan_kernels.cpu.rows import clear, dot, inverse, powers, scale_row
from minigan_kernels.cpu.scratch import aligned, scratch
from minigan_kernels.cpu.simd import (
    LANES,
    first_lanes,
    fma,
    largest,
    load_f32,
    load_i64,
    spread,
    where,
)
from minigan_kernels.cpu.threads import threads
from minigan_kernels.cpu.tiles import pack_panels, times_panel

Array = npt.NDArray[Any]

SCORES = 1 << 16  # of a task at a time: 256 KiB
TASKS = 8  # at least so many, if there are queries enough
RUNS = 16  # about so many tasks backward
MOST = 32 << 20  # bytes of panels at a time, and of sums
PIECE = 256  # rows of a sum that one task adds up


class Sizes(NamedTuple):
    """How attention is cut into tasks: by shapes only. All lengths in numbers, not bytes."""

    queries: int
    keys: int
    depth: int  # of queries and keys
    width: int  # of values
    rows: int  # queries of a block
    line: int  # from one row of scores to the next
    blocks: int  # of one batch entry
    is_causal: int


def sizes_of(q: Array, k: Array, v: Array, causal: bool) -> Sizes:
    """Blocks of the most queries whose scores fit."""
    (batch, queries, depth), keys, width = q.shape, k.shape[1], v.shape[2]
    rows = max(1, min(SCORES // (keys * TALLEST), 8)) * TALLEST
    while rows > TALLEST and batch * -(-queries // rows) < TASKS:
        rows = -(-rows // (2 * TALLEST)) * TALLEST
    line = -(-keys // PANEL) * PANEL + LANES
    return Sizes(queries, keys, depth, width, rows, line, -(-queries // rows), int(causal))


def takes(arrays: list[Array]) -> bool:
    """Whether the kernels are for these (B, n, m)."""
    return all(a.dtype == np.float32 and a.size > 0 for a in arrays)


def along(x: Array) -> Array:
    """x (B, n, m), or a copy if neither the rows nor the columns of its matrices are contiguous."""
    return x if 4 in x.strides[1:] else np.ascontiguousarray(x)


def forward(q: Array, k: Array, v: Array, bias: Array | None, causal: bool, scale: float) -> Array:
    """softmax(scale q k^T + bias) v of stacks (B, n, m); bias: a view of the scores' shape."""
    q, k, v = along(q), along(k), along(v)
    sizes = sizes_of(q, k, v, causal)
    y = aligned((*q.shape[:2], v.shape[2]))
    per = _entries(4 * k.shape[1] * (q.shape[2] + v.shape[2] + 2 * PANEL))
    for b in range(0, len(q), per):
        some = slice(b, b + per)
        with scratch() as space:
            keys, values = pack(k[some].swapaxes(1, 2), space), pack(v[some], space)
            work = space.array((threads(), sizes.rows, sizes.line + PANEL))
            tasks = len(q[some]) * sizes.blocks
            places, *steps = _places(bias, b, min(len(q), b + per))
            left = q[some], *q.strides
            outputs = values, y[some], work, places, *steps
            run(_attend, tasks, *sizes, float(scale), *left, keys, *outputs)
    return y


def backward(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None,
    causal: bool,
    scale: float,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None]:
    """(dq, dk, dv), None where not needed."""
    g, q, k, v = along(g), along(q), along(k), along(v)
    sizes = sizes_of(q, k, v, causal)
    dq, dk, dv = (
        aligned(a.shape) if need else None for a, need in zip((q, k, v), needs, strict=False)
    )
    sums = sizes.keys * (-(-sizes.depth // LANES) - (-sizes.width // LANES)) * LANES
    per = min(_entries(4 * sizes.keys * 2 * (sizes.depth + sizes.width + 2 * PANEL)), len(q))
    most = max(1, MOST // (4 * sums * per))
    parts = min(sizes.blocks, -(-RUNS // per), most)
    for b in range(0, len(q), per):
        some = slice(b, b + per)
        count = len(q[some])
        with scratch() as space:
            panels = (
                pack(k[some].swapaxes(1, 2), space),
                pack(v[some].swapaxes(1, 2), space),
                pack(k[some], space) if dq is not None else None,
            )
            dk_sums, dv_sums = (
                None if d is None else space.array((count, parts, d.shape[1], _whole(d.shape[2])))
                for d in (dk, dv)
            )
            right = max(_panels(sizes.depth), _panels(sizes.width))
            work = space.array((threads(), sizes.rows, 2 * sizes.line + PANEL + right))
            places, *steps = _places(bias, b, b + count)
            inputs = q[some], *q.strides, panels[0], g[some], *g.strides, *panels[1:]
            outputs = None if dq is None else dq[some], dk_sums, dv_sums, work, work.strides[0]
            cells = *sizes, float(scale), *inputs, *outputs, places, *steps, parts
            run(_differentiate, count * parts, *cells)
            for d, found in ((dk, dk_sums), (dv, dv_sums)):
                if d is not None:
                    pieces = count * -(-sizes.keys // PIECE)
                    run(_add_parts, pieces, found, d[some], parts, *d.shape[1:])
    return dq, dk, dv


def _entries(size: int) -> int:
    """Batch entries whose panels, of so many bytes each, exist at a time."""
    return max(1, MOST // size)


def _whole(n: int) -> int:
    return -(-n // LANES) * LANES


def _panels(n: int) -> int:
    return -(-n // PANEL) * PANEL


def _places(bias: Array | None, begin: int, end: int) -> tuple[Array | None, int, int]:
    """Where the bias of each entry is, and its steps in bytes from query to query, key to key."""
    if bias is None:
        return None, 0, 0
    *lead, row, column = bias.strides
    offsets = np.zeros((), np.int64)
    for n, step in zip(bias.shape, lead, strict=False):
        offsets = offsets[..., None] + np.arange(n, dtype=np.int64) * step
    return offsets.reshape(-1)[begin:end] + address(bias), row, column


# A block of queries ------------------------------------------------------------------------------


@part
def _times_keys(left, step, along_k, k, panels, seen, m, to, line):  # type: ignore[no-untyped-def]
    """to[i, j] = sum over k of left[i, k] panels[k, j] for the m queries and all keys."""
    for j in range(0, seen, PANEL):
        panel = panels + j // PANEL * k * PANEL_BYTES
        times_panel(PANEL, m, left, step, along_k, k, 1, 0, panel, to + 4 * j, 4 * line, 0, 0)


@part
def _times_rows(p, line, seen, keys, m, panels, width, to, edge):  # type: ignore[no-untyped-def]
    """to[i, :] = sum over keys j of p[i, j] panels[j, :]."""
    for j in range(0, width, PANEL):
        panel, n = panels + j // PANEL * keys * PANEL_BYTES, least(PANEL, width - j)
        times_panel(n, m, p, 4 * line, 4, seen, 1, 0, panel, to + 4 * j, 4 * width, edge, 0)


@part
def _add_transposed(p, line, seen, m, right, step, along_n, width, panels, to):  # type: ignore[no-untyped-def]
    """to[j, :] += sum over queries i of p[i, j] right[i, :]; rows of whole vectors."""
    pack_panels(right, step, along_n, m, width, panels, m * PANEL_BYTES)
    whole = (width + LANES - 1) // LANES * LANES
    for j in range(0, whole, PANEL):
        panel, n = panels + j // PANEL * m * PANEL_BYTES, least(PANEL, whole - j)
        times_panel(n, seen, p, 4, 4 * line, m, 1, 0, panel, to + 4 * j, 4 * whole, 0, 1)


@part
def _probabilities(p, n, seen, scale, bias, bias_step):  # type: ignore[no-untyped-def]
    """Scores -> probabilities of one query, of which it sees n."""
    by, low = spread(np.float32(scale)), spread(np.float32(-np.inf))
    top, add = low, spread(np.float32(0))
    if bias:
        add = spread(load_f32(bias))
    for i in range(0, n, LANES):
        if bias_step:
            add = take(bias + 4 * i, n - i)
        t = take(p + 4 * i, n - i)
        t = fma(t, by, add) if bias else t * by
        put(p + 4 * i, t, n - i)
        if n - i < LANES:
            t = where(first_lanes(n - i), t, low)
        top = where(t > top, t, top)
    found = largest(top)
    found = np.float32(0) if found == np.float32(-np.inf) else found
    scale_row(p, n, inverse(powers(p, p, n, found)))
    clear(p + 4 * n, seen - n)


@part
def _score_gradients(p, d, n, seen, scale):  # type: ignore[no-untyped-def]
    """d = p (d - sum p d) scale of one query."""
    mean, by = spread(np.float32(dot(p, d, n))), spread(np.float32(scale))
    for i in range(0, n, LANES):
        t = (take(d + 4 * i, n - i) - mean) * by
        put(d + 4 * i, take(p + 4 * i, n - i) * t, n - i)
    clear(d + 4 * n, seen - n)


@kernel
def _attend(args: int, task: int, thread: int) -> None:
    queries, keys, depth, width = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    rows, line, blocks, causal = arg(args, 4), arg(args, 5), arg(args, 6), arg(args, 7)
    b, first = task // blocks, task % blocks * rows
    m = least(rows, queries - first)
    seen = least(keys, first + m) if causal else keys
    p = arg(args, 16) + 4 * thread * rows * (line + PANEL)
    left = arg(args, 9) + b * arg(args, 10) + first * arg(args, 11)
    panels = arg(args, 13) + b * ((keys + PANEL - 1) // PANEL) * depth * PANEL_BYTES
    _times_keys(left, arg(args, 11), arg(args, 12), depth, panels, seen, m, p, line)
    for i in range(m):
        n = least(keys, first + i + 1) if causal else keys
        bias = 0
        if arg(args, 17):
            bias = load_i64(arg(args, 17) + 8 * b) + (first + i) * arg(args, 18)
        _probabilities(p + 4 * i * line, n, seen, real(args, 8), bias, arg(args, 19))
    panels = arg(args, 14) + b * ((width + PANEL - 1) // PANEL) * keys * PANEL_BYTES
    to = arg(args, 15) + 4 * (b * queries + first) * width
    _times_rows(p, line, seen, keys, m, panels, width, to, p + 4 * rows * line)


@kernel
def _differentiate(args: int, task: int, thread: int) -> None:
    queries, keys, depth, width = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    rows, line, blocks, causal = arg(args, 4), arg(args, 5), arg(args, 6), arg(args, 7)
    scale, parts = real(args, 8), arg(args, 28)
    b, which, key_panels = task // parts, task % parts, (keys + PANEL - 1) // PANEL
    deep = (depth + PANEL - 1) // PANEL
    p = arg(args, 23) + thread * arg(args, 24)
    d = p + 4 * rows * line
    edge = d + 4 * rows * line
    panels = edge + rows * PANEL_BYTES  # of a block of queries, and of gradients
    dq, dk, dv = arg(args, 20), arg(args, 21), arg(args, 22)
    if dk:
        dk += 4 * task * keys * ((depth + LANES - 1) // LANES * LANES)
        clear(dk, keys * ((depth + LANES - 1) // LANES * LANES))
    if dv:
        dv += 4 * task * keys * ((width + LANES - 1) // LANES * LANES)
        clear(dv, keys * ((width + LANES - 1) // LANES * LANES))
    for block in range(blocks * which // parts, blocks * (which + 1) // parts):
        first = block * rows
        m = least(rows, queries - first)
        seen = least(keys, first + m) if causal else keys
        q = arg(args, 9) + b * arg(args, 10) + first * arg(args, 11)
        g = arg(args, 14) + b * arg(args, 15) + first * arg(args, 16)
        right = arg(args, 13) + b * key_panels * depth * PANEL_BYTES
        _times_keys(q, arg(args, 11), arg(args, 12), depth, right, seen, m, p, line)
        right = arg(args, 18) + b * key_panels * width * PANEL_BYTES
        _times_keys(g, arg(args, 16), arg(args, 17), width, right, seen, m, d, line)
        for i in range(m):
            n = least(keys, first + i + 1) if causal else keys
            bias = 0
            if arg(args, 25):
                bias = load_i64(arg(args, 25) + 8 * b) + (first + i) * arg(args, 26)
            _probabilities(p + 4 * i * line, n, seen, scale, bias, arg(args, 27))
            _score_gradients(p + 4 * i * line, d + 4 * i * line, n, seen, scale)
        if dv:
            _add_transposed(p, line, seen, m, g, arg(args, 16), arg(args, 17), width, panels, dv)
        if dq:
            right = arg(args, 19) + b * deep * keys * PANEL_BYTES
            to = dq + 4 * (b * queries + first) * depth
            _times_rows(d, line, seen, keys, m, right, depth, to, edge)
        if dk:
            _add_transposed(d, line, seen, m, q, arg(args, 11), arg(args, 12), depth, panels, dk)


@kernel
def _add_parts(args: int, task: int, thread: int) -> None:
    """Sums of the parts, in order, without the numbers that fill up their rows."""
    sums, to, parts, keys, width = (
        arg(args, 0),
        arg(args, 1),
        arg(args, 2),
        arg(args, 3),
        arg(args, 4),
    )
    whole, pieces = (width + LANES - 1) // LANES * LANES, (keys + PIECE - 1) // PIECE
    b, first = task // pieces, task % pieces * PIECE
    for j in range(first, least(keys, first + PIECE)):
        for i in range(0, width, LANES):
            value = spread(np.float32(0))
            for which in range(parts):
                place = ((b * parts + which) * keys + j) * whole + i
                value = value + take(sums + 4 * place, LANES)
            put(to + 4 * ((b * keys + j) * width + i), value, width - i)
