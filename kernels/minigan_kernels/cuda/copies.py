"""Copies of arrays into parts of another one, on the GPU; they wait for memory.

In the memory order of the result every part is a number of rows, contiguous, one per place of the
axes in front. Rows are copied in units of 16 bytes where all of them begin and end at multiples of
16, else of 8, 4 or 1, whatever the dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod

from minigan_kernels.cuda.device import Array, Device, integers
from minigan_kernels.cuda.memory_order import dense, like, order_of
from minigan_kernels.cuda.places import THREADS, blocks, pieces
from minigan_kernels.cuda.sources import Source

UNITS = {16: "mg::Vector<unsigned, 4>", 8: "unsigned long long", 4: "unsigned", 1: "unsigned char"}
KERNELS = Source("copies.cu", tuple(f"concat<{unit}>" for unit in UNITS.values()))
SOURCES = (KERNELS,)

MOST_PARTS = 8  # of one launch
ITEMS = 4  # units per thread


def concat(device: Device, xs: Sequence[Array], axis: int) -> Array:
    """Arrays one after another along an axis, in the memory order of the largest."""
    largest = dense(max(xs, key=lambda x: x.size))
    order = order_of(largest)
    assert order is not None
    shape = list(largest.shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    y = like(device, largest, xs[0].dtype, shape)
    before = order.index(axis)
    rows = prod(shape[i] for i in order[:before])
    inner = prod(shape[i] for i in order[before + 1 :]) * y.itemsize  # bytes per place of the axis
    parts = [_in_order(device, x, order, largest) for x in xs if x.size]
    unit = _unit([x.data.ptr for x in parts] + [x.shape[axis] * inner for x in parts])
    starts, start = [], 0
    for x in parts:
        starts.append((x, x.shape[axis] * inner // unit, start))
        start += x.shape[axis] * inner // unit
    for first in range(0, len(starts), MOST_PARTS):
        _copy(device, starts[first : first + MOST_PARTS], y, rows, start, UNITS[unit])
    return y


def _in_order(device: Device, x: Array, order: Sequence[int], like_this: Array) -> Array:
    """x itself if its memory has this order without gaps, or a copy."""
    if x.transpose(order).flags.c_contiguous:
        return x
    moved = like(device, like_this, x.dtype, x.shape)
    moved[...] = x
    return moved


def _unit(numbers: Sequence[int]) -> int:
    """The largest unit that divides addresses and lengths."""
    common = gcd(*numbers)
    return next(unit for unit in UNITS if common % unit == 0)


def _copy(
    device: Device,
    parts: Sequence[tuple[Array, int, int]],
    y: Array,
    rows: int,
    width: int,
    unit: str,
) -> None:
    """Copy up to eight parts (array, units of a row, units in front of it) into rows of y."""
    filled = [*parts, *[(None, 0, 0)] * (MOST_PARTS - len(parts))]
    fields: dict[str, int] = {}
    for i, (_, wide, start) in enumerate(filled):
        fields |= {f"width{i}": wide, f"start{i}": start}
    most = max(wide for _, wide, _ in parts)
    for part in pieces(rows, width):
        count = part.stop - part.start
        grid = (*blocks(count * most, ITEMS), len(parts))
        arrays = [x for x, _, _ in filled]
        structure = integers(rows=count, width=width, **fields)
        device.launch(
            KERNELS, f"concat<{unit}>", grid, (THREADS,), *arrays, y, part.start, structure
        )
