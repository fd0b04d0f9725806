"""Gathering and its adjoint, scattering with addition, on the GPU; all wait for memory.

Scattering gathers too: contributions are sorted by their targets (`sort.py`), and each target adds
up its own in order. Few contributions to few rows need no sort: every row looks through them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigan_kernels.cuda import sort
from minigan_kernels.cuda.device import Array, Device, integers, type_name
from minigan_kernels.cuda.memory_order import channels_last, order_of, to_last
from minigan_kernels.cuda.places import (
    THREADS,
    as_maps,
    blocks,
    pieces,
    place_by_place,
    vector_size,
)
from minigan_kernels.cuda.sort import Segments, segments
from minigan_kernels.cuda.sources import Source

_VECTORS = (("float", 1), ("float", 4), ("double", 1), ("double", 2))
_KERNELS = ("take_rows", "gather_positions", "scatter_few", "add_blocks", "add_segments")
KERNELS = Source(
    "index.cu",
    (
        *(f"{kernel}<{t}, {v}>" for kernel in _KERNELS for t, v in _VECTORS),
        *("make_keys<int>", "make_keys<long long>"),
    ),
)
SOURCES = (KERNELS, *sort.SOURCES)

ITEMS = 4  # per thread of the gathering kernels
FEW = 2**11, 2**22  # contributions, and contributions x vectors of the result, without a sort


def take_rows(device: Device, x: Array, index: Any) -> Array:
    """y[i] = x[index[i]]; x (rows, ...), index of any shape."""
    index = device.upload(index) if isinstance(index, np.ndarray) else index
    if x.dtype.kind != "f":
        return device.xp.take(x, index, axis=0)
    x, order = _rows(x)
    width = math.prod(x.shape[1:])
    flat = index.astype(np.int64, copy=False).reshape(index.size)
    y = device.empty((index.size, width), x.dtype)
    name, vectors = _instance("take_rows", x, width)
    for part in pieces(index.size, width):
        to = y[part]
        grid = blocks(len(to) * vectors, ITEMS)
        device.launch(KERNELS, name, grid, (THREADS,), x, flat[part], to, len(to), vectors)
    return _from_rows(y, order, index.shape, x.shape)


def scatter_rows(device: Device, g: Array, index: Any, rows: int) -> Array:
    """y = zeros(rows, ...); y[index[i]] += g[i], i in order."""
    index = device.upload(index) if isinstance(index, np.ndarray) else index
    count, tail = index.size, g.shape[index.ndim :]
    g, order = _rows(g.reshape(count, *tail))
    width = math.prod(tail)
    y = device.empty((rows, width), g.dtype)
    name, vectors = _instance("scatter_few", g, width)
    if count <= FEW[0] and count * rows * vectors <= FEW[1]:
        sizes = count, rows, vectors
        flat = index.astype(np.int64, copy=False).reshape(count)
        device.launch(KERNELS, name, blocks(rows * vectors), (THREADS,), g, flat, y, *sizes)
    else:
        keys = _keys(device, index.reshape(count), 1)
        _add_segments(device, g, segments(device, keys, 1, rows), width, count, y)
    return _from_rows(y, order, (rows,), g.shape)


def gather_positions(device: Device, x: Array, index: Any) -> Array:
    """y[n, c, ...] = x[n, c] at the flat spatial position index[n, c or 0, ...]."""
    index = device.upload(index) if isinstance(index, np.ndarray) else index
    (n, c), out = x.shape[:2], index.shape[2:]
    flat, last = place_by_place(device, x)
    positions = _positions(device, index, last)
    outer, spatial, inner = flat.shape
    places = math.prod(out)
    y = device.empty((outer, places, inner), x.dtype)
    alike = positions.shape[2] == 1  # all numbers of a place move together
    name, vectors = _instance("gather_positions", x, inner if alike else 1)
    vectors = vectors if alike else inner
    repeats = outer // max(1, positions.shape[0])
    for part in pieces(positions.shape[0], repeats * max(places, spatial) * inner):
        wide = slice(part.start * repeats, part.stop * repeats)
        to = y[wide]
        sizes = integers(
            outer=len(to),
            places=places,
            inner=vectors,
            spatial=spatial,
            outers=repeats,
            inners=positions.shape[2],
        )
        grid = blocks(to.shape[0] * places * vectors, ITEMS)
        arrays = flat[wide], positions[part], to
        device.launch(KERNELS, name, grid, (THREADS,), *arrays, sizes)
    return as_maps(y, last, n, c, out)


def scatter_positions(device: Device, g: Array, index: Any, spatial: Sequence[int]) -> Array:
    """Add each g to its position in zeros (N, C, *spatial)."""
    index = device.upload(index) if isinstance(index, np.ndarray) else index
    n, c = g.shape[:2]
    g = channels_last(device, g) if index.shape[1] < c else g
    flat, last = place_by_place(device, g)
    outer, places, inner = flat.shape
    positions = _positions(device, index, last)
    y = device.empty((outer, math.prod(spatial), inner), g.dtype)
    width = inner // max(1, positions.shape[2])  # numbers with one position
    most = max(places, y.shape[1]) * inner
    for part in pieces(outer, most):
        keys = _keys(device, positions[part].reshape(-1), positions.shape[2])
        groups, targets = part.stop - part.start, y.shape[1] * positions.shape[2]
        found = segments(device, keys, groups, targets)
        _add_segments(device, flat[part], found, width, keys.size // max(1, groups), y[part])
    return as_maps(y, last, n, c, spatial)


def _add_segments(
    device: Device, g: Array, found: Segments, width: int, per: int, y: Array
) -> None:
    """y[target] = sum of the rows of g (`width` numbers each) in the target's segment."""
    name, vectors = _instance("add_blocks", g, width)
    sums = device.empty((found.blocks, width), g.dtype)
    arrays = g, found.order, found.keys, sums
    grid = blocks(found.blocks * vectors)
    device.launch(KERNELS, name, grid, (THREADS,), *arrays, found.blocks, vectors, per)
    name, vectors = _instance("add_segments", g, width)
    targets = found.span.shape[0]
    arrays = g, found.order, found.span, sums
    device.launch(
        KERNELS, name, blocks(targets * vectors), (THREADS,), *arrays, y, targets, vectors
    )


def _instance(kernel: str, x: Array, width: int) -> tuple[str, int]:
    """The instance for rows of `width` numbers, and the vectors in a row."""
    size = vector_size(width, x.itemsize)
    return f"{kernel}<{type_name(x.dtype)}, {size}>", width // size


def _keys(device: Device, index: Array, inner: int) -> Array:
    """Sorting keys: the index itself, or index * inner + the number's place among `inner`."""
    if inner == 1 and index.dtype == np.int32:
        return index
    keys = device.empty(index.shape, np.int32)
    index = index if index.dtype in (np.int32, np.int64) else index.astype(np.int64)
    name = f"make_keys<{'int' if index.itemsize == 4 else 'long long'}>"
    device.launch(KERNELS, name, blocks(index.size), (THREADS,), index, keys, index.size, inner)
    return keys


def _positions(device: Device, index: Array, last: bool) -> Array:
    """index (N, C or 1, *out) in the form of `place_by_place`, int32."""
    n, c, *out = index.shape
    index = index.astype(np.int32, copy=False)
    if last:
        moved = to_last(channels_last(device, index))
        return moved.reshape(n, math.prod(out), c)
    return device.xp.ascontiguousarray(index).reshape(n * c, math.prod(out), 1)


def _rows(x: Array) -> tuple[Array, tuple[int, ...]]:
    """x with each of its rows (axis 0) in one piece, row after row; and its order in memory."""
    order = order_of(x)
    if order is None or order[0] != 0:
        x, order = x.copy(order="C"), tuple(range(x.ndim))
    return x, order


def _from_rows(
    y: Array, order: tuple[int, ...], shape: tuple[int, ...], source: tuple[int, ...]
) -> Array:
    """y (rows, numbers) as (*shape, ...), numbers in the order that the source's rows have."""
    tail = order[1:]
    y = y.reshape(y.shape[0], *[source[i] for i in tail])
    back = [1 + tail.index(i) for i in range(1, len(order))]
    return y.transpose(0, *back).reshape((*shape, *source[1:]))
