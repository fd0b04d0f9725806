"""Tables of arrays in device memory: what lets one launch serve all parameters of a network.

A table depends on the addresses of the arrays alone and is kept.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from minigan_kernels.cuda.device import Array, Device
from minigan_kernels.cuda.memory_order import dense, in_order_of, same_order
from minigan_kernels.cuda.sources import Source
from minigan_kernels.group import Group

Arrays = Sequence[Array]
Lists = Sequence[Arrays | None]  # parameters, gradients, and the memory of a rule
Addresses = tuple[tuple[int, ...], ...]  # of each list

CHUNK = 256 * 4 * 16  # bytes of each array that a block serves
POINTERS = 5  # of a row: p, g and up to three arrays of memory
OPTIONS = np.dtype([("v", np.float64, 9)])


class Table:
    """The arrays of a call in device memory, and the options of its rule.

    Attributes
    ----------
    rows, chunks : `Row` and `Chunk` of optim.cu: the arrays, and which piece each block serves.
    count : blocks.
    options : up to nine float64 numbers, None until they are needed; `values` is what they are.
    """

    def __init__(self, device: Device, item: int, sizes: tuple[int, ...], addresses: Addresses):
        rows = np.zeros((len(sizes), 1 + POINTERS), np.int64)
        rows[:, 0] = sizes
        rows[:, 1 : 1 + len(addresses)] = np.array(addresses, np.int64).T
        counts = -(-np.array(sizes, np.int64) * item // CHUNK)
        ends = np.cumsum(counts)
        chunks = np.empty((ends[-1], 2), np.int32)  # row, number of the chunk within it
        chunks[:, 0] = np.repeat(np.arange(len(sizes)), counts)
        chunks[:, 1] = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        self.rows, self.chunks = device.upload(rows), device.upload(chunks)
        self.count = len(chunks)
        self.options: Array | None = None
        self.values: tuple[float, ...] | None = None

    def set(self, device: Device, source: Source, values: tuple[float, ...]) -> Array:
        """The options in device memory; written only when they change."""
        if self.options is None:
            self.options = device.empty((9,), np.float64)
        if values != self.values:
            whole = np.zeros((), OPTIONS)
            whole["v"][: len(values)] = values
            device.launch(source, "set_options", (1,), (1,), self.options, whole)
            self.values = values
        return self.options


@lru_cache(maxsize=128)
def _table(
    device: Device, rule: str, item: int, sizes: tuple[int, ...], addresses: Addresses
) -> Table:
    """It names places, not arrays: whatever lies there later is served as well."""
    return Table(device, item, sizes, addresses)


def table_of(
    device: Device, rule: str, which: Sequence[int], lists: Lists
) -> tuple[Table, list[tuple[Array | None, Array]]]:
    """The table of the arrays with the numbers `which`, made when it is first needed.

    Also pairs (array, its copy in the parameter's memory order) that must be copied back.
    """
    moved: list[tuple[Array | None, Array]] = []
    params = lists[0]
    assert params is not None
    group = params if type(params) is Group and len(which) == len(params) else None
    found = None if group is None else _prepared(group, lists)
    if found is None:
        found = _places(device, which, lists, moved)
        if group is not None and not moved:
            group.prepared = _Prepared(lists, *found)
    return _table(device, rule, params[which[0]].dtype.itemsize, *found), moved


def _places(
    device: Device,
    which: Sequence[int],
    lists: Lists,
    moved: list[tuple[Array | None, Array]],
) -> tuple[tuple[int, ...], Addresses]:
    """Sizes of the parameters and addresses of all arrays.

    An array whose memory order is not its parameter's is served by a copy: it is put into `moved`
    with the array to copy back to, None for a gradient.
    """
    sizes, columns = [], []
    for i in which:
        original: Array = lists[0][i]  # type: ignore[index]
        w = dense(original)
        places = []
        for arrays in lists:
            a = None if arrays is None else arrays[i]
            if a is None or not original.size:
                places.append(0)
                continue
            fitting = w if arrays is lists[0] else _in_order_of(device, w, a)
            if fitting is not a:
                moved.append((None if arrays is lists[1] else a, fitting))
            places.append(_address(fitting))
        sizes.append(w.size)
        columns.append(places)
    return tuple(sizes), tuple(zip(*columns, strict=True))


def _in_order_of(device: Device, w: Array, a: Array) -> Array:
    """a with the dtype and memory order of w: itself or a copy."""
    return in_order_of(device, w, a if a.dtype == w.dtype else a.astype(w.dtype))


class _Prepared:
    """What a group keeps for its next update: where its arrays are.

    It keeps the arrays too, so that their places cannot go to others; but not gradients, which are
    new in every step (unless they are a group as well).
    """

    def __init__(self, lists: Lists, sizes: tuple[int, ...], addresses: Addresses) -> None:
        kept = [None if a is None else tuple(a) for a in lists]
        if type(lists[1]) is not Group:
            kept[1] = None
        self.lists, self.sizes, self.addresses = kept, sizes, addresses


def _prepared(group: Group, lists: Lists) -> tuple[tuple[int, ...], Addresses] | None:
    """What `_places` would say, if the group was prepared for these lists."""
    known = group.prepared
    if not isinstance(known, _Prepared) or len(known.lists) != len(lists):
        return None
    for i, (kept, given) in enumerate(zip(known.lists, lists, strict=True)):
        if i != 1 and not _same(kept, given):
            return None
    gradients: Any = lists[1]
    if _same(known.lists[1], gradients):
        return known.sizes, known.addresses
    for w, g in zip(group, gradients, strict=True):
        if g.dtype != w.dtype or not (g.strides == w.strides or same_order(w, g)):
            return None
    places = tuple(map(_address, gradients))
    return known.sizes, (known.addresses[0], places, *known.addresses[2:])


def _same(kept: Arrays | None, given: Arrays | None) -> bool:
    """Whether two lists hold the same arrays: not equal ones, the same."""
    if kept is None or given is None:
        return kept is given
    return len(kept) == len(given) and all(map(operator.is_, kept, given))


def _address(a: Array) -> int:
    return int(a.data.ptr)
