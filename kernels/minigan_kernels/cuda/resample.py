"""Linear maps along axes by a table, on the GPU: resizing, average pooling, separable filters.

`axis_map` mixes whole vectors of channels (or of lines of pixels). `plane_map` maps rows and
columns in one pass over memory: a block mixes rows into shared memory and from there columns. Both
are bound by memory. Tables are NumPy arrays that live long, uploaded once (`Device.constant`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigan_kernels.cuda.device import Array, Device, PerArray, integers, type_name
from minigan_kernels.cuda.memory_order import dense, order_of
from minigan_kernels.cuda.places import (
    THREADS,
    as_maps,
    blocks,
    pieces,
    place_by_place,
    vector_size,
)
from minigan_kernels.cuda.sources import Source

Table = tuple[Any, Any]  # index, weight

_INSTANCES = ("float, 1", "float, 4", "double, 1", "double, 2")
KERNELS = Source(
    "resample.cu", tuple(f"{k}<{i}>" for k in ("axis_map", "plane_map") for i in _INSTANCES)
)
SOURCES = (KERNELS,)

SHARED = 32 * 1024  # bytes of a block: six fit into a multiprocessor
_TILES = PerArray()


def axis_map(device: Device, x: Array, axis: int, index: Any, weight: Any) -> Array:
    """y[.., i, ..] = sum over k of weight[i, k] x[.., index[i, k], ..]; index -1: no tap."""
    if x.dtype.kind != "f":
        return _axis_map_of_integers(device, x, axis, index, weight)
    x = dense(x)
    order = order_of(x)
    assert order is not None
    sizes = [x.shape[i] for i in order]
    at = order.index(axis)
    outer, n, inner = math.prod(sizes[:at]), sizes[at], math.prod(sizes[at + 1 :])
    source = x.transpose(*order).reshape(outer, n, inner)
    y = device.empty((outer, len(index), inner), x.dtype)
    size = vector_size(inner, x.itemsize)
    tables = device.constant(index, np.int32), device.constant(weight, x.dtype)
    name = f"axis_map<{type_name(x.dtype)}, {size}>"
    for part in pieces(outer, max(n, len(index)) * inner):
        to = y[part]
        numbers = integers(
            planes=to.shape[0], length=n, inner=inner // size, out=len(index), taps=index.shape[1]
        )
        grid = blocks(to.size // size, 4 if size == 1 else 1)
        device.launch(KERNELS, name, grid, (THREADS,), source[part], *tables, to, numbers)
    sizes[at] = len(index)
    return y.reshape(sizes).transpose(*[order.index(i) for i in range(x.ndim)])


def _axis_map_of_integers(device: Device, x: Array, axis: int, index: Any, weight: Any) -> Array:
    """Labels and masks: one tap after another with the array module."""
    rows = device.xp.moveaxis(x, axis, 0)
    y = device.xp.zeros((len(index), *rows.shape[1:]), x.dtype)
    for taps, factors in zip(index.T, weight.T, strict=True):
        factor = np.where(taps >= 0, factors, 0).astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        y += device.upload(factor) * rows[device.upload(np.maximum(taps, 0))]
    return device.xp.moveaxis(y, 0, axis)


def plane_map(
    device: Device,
    x: Array,
    row_index: Any,
    row_weight: Any,
    column_index: Any,
    column_weight: Any,
) -> Array:
    """axis_map of axis 2 by the first table, then of axis 3 by the second; x is (N,C,H,W)."""
    rows, columns = (row_index, row_weight), (column_index, column_weight)
    if x.dtype.kind != "f":
        return axis_map(device, axis_map(device, x, 2, *rows), 3, *columns)
    flat, last = place_by_place(device, x)
    outer, inner = flat.shape[0], flat.shape[2]
    out = len(row_index), len(column_index)
    size = vector_size(inner, x.itemsize)
    shape = outer * out[0], inner // size, size * x.itemsize, SHARED
    tile = _TILES.get(column_index, shape, lambda: _Tile.of(column_index, *shape))
    if tile is None:  # the columns of a tile come from far apart
        return axis_map(device, axis_map(device, x, 2, *rows), 3, *columns)
    y = device.empty((outer, math.prod(out), inner), x.dtype)
    tables = [
        *(device.constant(row_index, np.int32), device.constant(row_weight, x.dtype)),
        *(device.constant(column_index, np.int32), device.constant(column_weight, x.dtype)),
        device.constant(tile.first),
    ]
    name = f"plane_map<{type_name(x.dtype)}, {size}>"
    for part in pieces(outer, max(flat.shape[1], y.shape[1]) * inner):
        to = y[part]
        numbers = integers(
            planes=to.shape[0],
            height=x.shape[2],
            width=x.shape[3],
            inner=inner // size,
            rows_out=out[0],
            columns_out=out[1],
            row_taps=row_index.shape[1],
            column_taps=column_index.shape[1],
            lines=tile.lines,
            columns=tile.columns,
            room=tile.room,
        )
        grid = tile.grid(to.shape[0] * out[0], out[1], inner // size)
        arrays = flat[part], *tables, to
        device.launch(KERNELS, name, grid, tile.block, *arrays, numbers, shared=tile.shared)
    return as_maps(y, last, x.shape[0], x.shape[1], out)


class _Tile:
    """How much of the result a block makes.

    Attributes
    ----------
    block : threads along vectors of a pixel, columns, lines.
    columns, lines : of the results.
    first, room : where the columns that a tile of columns reads begin, and how many these are.
    """

    def __init__(
        self,
        block: tuple[int, int, int],
        columns: int,
        lines: int,
        first: Any,
        room: int,
        item: int,
    ) -> None:
        self.block, self.columns, self.lines = block, columns, lines
        self.first, self.room = first, room
        self.shared = block[0] * room * lines * item

    @classmethod
    def of(cls, index: Any, lines: int, vectors: int, item: int, shared: int) -> _Tile | None:
        """The largest tile that fits into shared memory; None if none does."""
        out = len(index)
        x = min(32, max(1, vectors))
        y = min(THREADS // x, 1 << max(0, out - 1).bit_length())
        z = THREADS // (x * y)
        columns = 2 * y if out > y else y
        while columns:
            first, room = _ranges(index, columns)
            line = x * room * item
            if line * z <= shared:
                several = min(4, shared // (line * z), -(-lines // z))
                return cls((x, y, z), columns, z * max(1, several), first, room, item)
            if z > 1:
                z //= 2
            else:
                columns //= 2
        return None

    def grid(self, lines: int, columns: int, vectors: int) -> tuple[int, int, int]:
        """Blocks along lines, tiles of columns, vectors."""
        x = self.block[0]
        return -(-lines // self.lines), -(-columns // self.columns), -(-vectors // x)


def _ranges(index: Any, columns: int) -> tuple[Any, int]:
    """First input column of each tile of output columns, and the widest reach of a tile."""
    first, room = [], 1
    for start in range(0, len(index), columns):
        taps = index[start : start + columns]
        taps = taps[taps >= 0]
        low, high = (int(taps.min()), int(taps.max())) if taps.size else (0, 0)
        first.append(low)
        room = max(room, high - low + 1)
    return np.array(first, np.int32), room
