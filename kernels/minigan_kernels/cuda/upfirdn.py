"""Up-sample, filter, down-sample on the GPU, in one pass over memory.

A filter that is an outer product (the usual binomial ones are) is a map of rows and one of columns:
`plane_map` with polyphase tables. Any other filter runs over tiles of x in shared memory, with a
border as wide as the filter. No inserted zero is ever multiplied. Bound by memory, and filters of
more than about 5x5 taps that are no outer product by shared memory, which is read once per tap.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from minigan_kernels.cuda.device import Array, Device, integers, type_name
from minigan_kernels.cuda.places import THREADS, as_maps, pieces, place_by_place, vector_size
from minigan_kernels.cuda.resample import plane_map
from minigan_kernels.cuda.sources import Source

Pair = tuple[int, int]

KERNELS = Source(
    "upfirdn.cu",
    tuple(f"filter_tile<{i}>" for i in ("float, 1", "float, 4", "double, 1", "double, 2")),
)
SOURCES = (KERNELS,)

SHARED = 40 * 1024  # bytes of a block


def upfirdn2d(
    device: Device,
    x: Array,
    f: Any,
    up: Pair,
    down: Pair,
    padding: tuple[Pair, Pair],
    flip: bool = False,
) -> Array:
    """Insert zeros, pad or crop, convolve each channel with f, keep every down-th element."""
    taps = np.asarray(f if isinstance(f, np.ndarray) else f.get())
    key = taps.tobytes(), taps.dtype.str, taps.shape, bool(flip), x.dtype.str
    factors = _factors(*key)
    if len(factors) > 1:
        found = _filter(device, x, _oriented(*key), up, down, padding)
        if found is not None:
            return found
    y: Array | None = None
    for vertical, horizontal in factors:
        rows = _polyphase(x.shape[2], vertical, up[0], down[0], padding[0])
        columns = _polyphase(x.shape[3], horizontal, up[1], down[1], padding[1])
        part = plane_map(device, x, *rows, *columns)
        y = part if y is None else y + part
    assert y is not None
    return y


@lru_cache(maxsize=64)
def _oriented(taps: bytes, dtype: str, shape: Pair, flip: bool, result: str) -> Any:
    """The filter as it is applied: forward, in the dtype of x."""
    f = np.frombuffer(taps, dtype).reshape(shape)
    return np.ascontiguousarray(f if flip else f[::-1, ::-1], result)


@lru_cache(maxsize=64)
def _factors(
    taps: bytes, dtype: str, shape: Pair, flip: bool, result: str
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """The filter as a sum of outer products (column, row), as exact as the dtype of x."""
    f = _oriented(taps, dtype, shape, flip, result)
    left, strengths, right = np.linalg.svd(f.astype(np.float64), full_matrices=False)
    noise = 4 * np.finfo(f.dtype).eps * strengths[0]
    rank = max(1, int((strengths > noise).sum()))
    return [
        (tuple((left[:, r] * strengths[r]).tolist()), tuple(right[r].tolist())) for r in range(rank)
    ]


@lru_cache(maxsize=256)
def _polyphase(
    n: int, taps: tuple[float, ...], up: int, down: int, padding: Pair
) -> tuple[Any, Any]:
    """For each output the inputs that the filter meets, and its taps there: a table of `axis_map`.

    Output i covers places i down - padding[0] + 0, .., k - 1 of the up-sampled axis, of which only
    multiples of `up` hold an input.
    """
    k = len(taps)
    out = (n * up + padding[0] + padding[1] - k) // down + 1
    start = np.arange(out) * down - padding[0]
    tap = (-start % up)[:, None] + up * np.arange(-(-k // up))
    source = (start[:, None] + tap) // up
    valid = (tap < k) & (source >= 0) & (source < n)
    index = np.where(valid, source, -1).astype(np.int64)
    return index, np.array(taps)[np.where(valid, tap, 0)]


def _filter(
    device: Device, x: Array, f: Any, up: Pair, down: Pair, padding: tuple[Pair, Pair]
) -> Array | None:
    """The same with a filter of two axes at once; None if no tile fits into shared memory."""
    out = [
        (n * u + a + b - k) // d + 1
        for n, u, (a, b), k, d in zip(x.shape[2:], up, padding, f.shape, down, strict=True)
    ]
    flat, last = place_by_place(device, x)
    outer, inner = flat.shape[0], flat.shape[2]
    size = vector_size(inner, x.itemsize)
    plan = _tile(tuple(out), f.shape, up, down, inner // size, size * x.itemsize)
    if plan is None:
        return None
    block, tile, room = plan
    y = device.empty((outer, math.prod(out), inner), x.dtype)
    name = f"filter_tile<{type_name(x.dtype)}, {size}>"
    tiles = math.prod(-(-o // t) for o, t in zip(out, tile, strict=True))
    for part in pieces(outer, max(flat.shape[1], y.shape[1]) * inner):
        to = y[part]
        values = (*f.shape, *up, *down, padding[0][0], padding[1][0], *tile, *room)
        sizes = integers(
            planes=to.shape[0],
            height=x.shape[2],
            width=x.shape[3],
            inner=inner // size,
            rows_out=out[0],
            columns_out=out[1],
            **dict(zip(_PAIRS, values, strict=True)),
        )
        grid = to.shape[0] * tiles, -(-inner // size // block[0])
        shared = math.prod(room) * block[0] * size * x.itemsize
        arrays = flat[part], device.constant(f), to
        device.launch(KERNELS, name, grid, block, *arrays, sizes, shared=shared)
    return as_maps(y, last, x.shape[0], x.shape[1], out)


_PAIRS = [f"{n}{i}" for n in ("kernel", "up", "down", "before", "tile", "room") for i in (0, 1)]


@lru_cache(maxsize=256)
def _tile(
    out: tuple[int, ...], kernel: Pair, up: Pair, down: Pair, vectors: int, item: int
) -> tuple[tuple[int, int, int], Pair, Pair] | None:
    """Threads (vectors, columns, rows), results (rows, columns) and pixels of x of a block."""
    x = min(8, max(1, vectors))
    while x:
        y = min(32 if x == 1 else 16, 1 << max(0, out[1] - 1).bit_length(), THREADS // x)
        rows, columns = THREADS // (x * y), y
        for shrink in range(5):
            tile = max(1, 2 * rows >> shrink), max(1, 2 * columns >> shrink)
            room = _room(tile, kernel, up, down)
            if math.prod(room) * x * item <= SHARED:
                return (x, y, rows), tile, room
        x //= 2
    return None


def _room(tile: Pair, kernel: Pair, up: Pair, down: Pair) -> Pair:
    """Pixels of x that a tile meets, at most."""
    rows, columns = (
        ((t - 1) * d + k - 1) // u + 1 for t, k, u, d in zip(tile, kernel, up, down, strict=True)
    )
    return rows, columns
