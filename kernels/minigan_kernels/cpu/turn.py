"""Tiles of a matrix turned around, for kernels that meet two memory orders in one operation.

Two arrays of one shape without gaps that differ in their memory order, such as images as they are
loaded (N,C,H,W) beside images as a network makes them (channels-last), differ nearly always by one
transposition. With neighbouring axes joined, an element is number

    (a B + b) C + c   of one and   (a C + c) B + b   of the other.

A kernel goes through the first in tiles of some b and c, and has the same tile of the second turned
around into a small buffer beforehand: nothing else is copied.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.flat import CHUNK, dense_order, least
from minigan_kernels.cpu.parallel import part
from minigan_kernels.cpu.simd import (
    LANES,
    load_f32,
    mix_three,
    part_three,
    store_f32,
    transpose,
)

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

WIDE = 256  # c of a tile, or more


class Tiles(NamedTuple):
    """How (A, B, C) numbers are cut; `turned` if the second array needs it."""

    turned: bool
    numbers: int  # of a tile
    tasks: int
    cells: Array  # turned, B, C, and how many b and c a tile has, as a kernel reads them


@lru_cache(maxsize=4096)
def tiles_of(shape: Shape, strides: Shape, other: Shape | None) -> Tiles | None:
    """Tiles of an array, in its memory order, beside one with strides `other`, both of float32.

    None if there are gaps, or more than a transposition between the two.
    """
    first = dense_order(shape, strides)
    second = first if other is None else dense_order(shape, other)
    if first is None or second is None:
        return None
    place = {axis: i for i, axis in enumerate(i for i in second if shape[i] > 1)}
    sizes: list[int] = []
    places: list[list[int]] = []
    for axis in first:
        if shape[axis] == 1:
            continue
        if places and place[axis] == places[-1][-1] + 1:
            sizes[-1] *= shape[axis]
            places[-1].append(place[axis])
        else:
            sizes.append(shape[axis])
            places.append([place[axis]])
    order = sorted(range(len(sizes)), key=places.__getitem__)
    if len(sizes) < 2:
        n = prod(shape)
        return Tiles(False, CHUNK, -(-n // CHUNK), np.array([0, 1, n, 1, CHUNK], np.int64))
    if order not in ([1, 0], [0, 2, 1]):
        return None
    return _turned(*([1] * (3 - len(sizes)) + sizes))


def _turned(a: int, b: int, c: int) -> Tiles:
    """Tiles of at most CHUNK numbers, whole rows of c where these are short."""
    c_tile = c if c <= WIDE else min(c, max(WIDE, CHUNK // min(b, 64) // LANES * LANES))
    b_tile = min(b, max(LANES, CHUNK // c_tile // LANES * LANES))
    tasks = a * -(-b // b_tile) * -(-c // c_tile)
    return Tiles(True, b_tile * c_tile, tasks, np.array([1, b, c, b_tile, c_tile], np.int64))


@part
def turn(source, source_row, rows, columns, target, target_row):  # type: ignore[no-untyped-def]
    """target[i, j] = source[j, i] for i < rows, j < columns; rows lie so many bytes apart."""
    if columns == 3 and target_row == 12:
        whole = rows // LANES * LANES
        for i in range(0, whole, LANES):
            mix_three(source + 4 * i, source_row, target + 12 * i)
        _turn_each(source, source_row, whole, rows, 0, columns, target, target_row)
    elif rows == 3 and source_row == 12:
        whole = columns // LANES * LANES
        for j in range(0, whole, LANES):
            part_three(source + 12 * j, target_row, target + 4 * j)
        _turn_each(source, source_row, 0, rows, whole, columns, target, target_row)
    else:
        down, across = rows // LANES * LANES, columns // LANES * LANES
        for i in range(0, down, LANES):
            for j in range(0, across, LANES):
                p = source + j * source_row + 4 * i
                transpose(p, source_row, target + i * target_row + 4 * j, target_row)
        _turn_each(source, source_row, 0, down, across, columns, target, target_row)
        _turn_each(source, source_row, down, rows, 0, columns, target, target_row)


@part
def _turn_each(source, source_row, i0, i1, j0, j1, target, target_row):  # type: ignore[no-untyped-def]
    for i in range(i0, i1):
        for j in range(j0, j1):
            store_f32(target + i * target_row + 4 * j, load_f32(source + j * source_row + 4 * i))


@part
def tile(task, b, c, b_tile, c_tile):  # type: ignore[no-untyped-def]
    """(numbers before it here, numbers before it in the other array, rows, columns) of a tile."""
    across, down = (c + c_tile - 1) // c_tile, (b + b_tile - 1) // b_tile
    c0, b0, a = task % across * c_tile, task // across % down * b_tile, task // (across * down)
    rows, columns = least(b_tile, b - b0), least(c_tile, c - c0)
    return (a * b + b0) * c + c0, (a * c + c0) * b + b0, rows, columns
