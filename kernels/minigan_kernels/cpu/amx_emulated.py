"""The tile instructions of AMX computed in memory, for machines and tests that have none.

A program sees the matrix unit as eight tiles of up to 16 rows of 64 bytes. One instruction takes
a tile A of bfloat16 numbers, a tile B of pairs of them, and adds their product to a tile C of
float32:

    C[m, n] += sum over k of A[m, 2k] B[k, n].low + A[m, 2k + 1] B[k, n].high

as Intel defines TDPBF16PS: even and odd k are summed apart from zero, each step a fused
multiply-add; the two sums are added; then C. Numbers below the smallest normal float32 count as
zero before and after every step. The products of two bfloat16 numbers are exact in float32, so the
order of these additions is all there is to say. What the definition leaves open, and may differ
from the silicon: the bits inside a NaN, and results that round up to the smallest normal number.

A thread's tiles live at the address `tiles`: the 64 bytes of the configuration as the processor
reads them (see `amx_tiles`), then eight times a kilobyte.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan_kernels.cpu.parallel import part
from minigan_kernels.cpu.simd import (
    BYTES,
    bits_of,
    floats_of,
    fma,
    load,
    load_f32,
    load_i64,
    load_part,
    shift_left,
    spread,
    spread_whole,
    store,
    store_part,
    where,
)

CONFIG_BYTES, TILE_BYTES, ROWS = 64, 1024, 16
_SMALLEST = np.float32(np.finfo(np.float32).tiny)  # of the normal numbers
_ZERO, _NAN = np.float32(0), np.float32(np.nan)


@part
def _at(tiles: int, tile: int) -> int:
    return tiles + CONFIG_BYTES + TILE_BYTES * tile


@part
def _rows(tiles: int, tile: int) -> int:
    return (load_i64(tiles + 48) >> 8 * tile) & 0xFF


@part
def _columns(tiles: int, tile: int) -> int:
    """In numbers of 32 bits."""
    return ((load_i64(tiles + 16 + 8 * (tile // 4)) >> 16 * (tile % 4)) & 0xFFFF) // 4


def tilezero(tiles: int, tile: int) -> None:
    for row in range(ROWS):
        store(_at(tiles, tile) + BYTES * row, spread(_ZERO))


def tileloadd(tiles: int, tile: int, p: int, stride: int) -> None:
    for row in range(ROWS):
        columns = _columns(tiles, tile) if row < _rows(tiles, tile) else 0
        store(_at(tiles, tile) + BYTES * row, load_part(p + stride * row, columns))


def tilestored(tiles: int, tile: int, p: int, stride: int) -> None:
    for row in range(_rows(tiles, tile)):
        line = load(_at(tiles, tile) + BYTES * row)
        store_part(p + stride * row, line, _columns(tiles, tile))


@part
def _flushed(v: Any) -> Any:
    """Zero instead of numbers that are not normal."""
    zero = spread(_ZERO)
    return where(v < spread(_SMALLEST), where(v > spread(-_SMALLEST), zero, v), v)


@part
def _low(pairs: Any) -> Any:
    """The first bfloat16 of each pair; its bits are the upper half of the float32."""
    return _flushed(floats_of(shift_left(pairs, 16)))


@part
def _high(pairs: Any) -> Any:
    return _flushed(floats_of(pairs & spread_whole(0xFFFF0000)))


def tdpbf16ps(tiles: int, c: int, a: int, b: int) -> None:
    rows, pairs = _rows(tiles, c), _columns(tiles, a)
    fits = _rows(tiles, a) == rows and _rows(tiles, b) == pairs
    fits = fits and _columns(tiles, b) == _columns(tiles, c)
    for m in range(rows):
        even = odd = spread(_ZERO)
        for k in range(pairs):
            left = bits_of(spread(load_f32(_at(tiles, a) + BYTES * m + 4 * k)))
            right = bits_of(load(_at(tiles, b) + BYTES * k))
            even = _flushed(fma(_low(left), _low(right), even))
            odd = _flushed(fma(_high(left), _high(right), odd))
        both = _flushed(even + odd) if fits else spread(_NAN)  # the processor would stop us
        p = _at(tiles, c) + BYTES * m
        store(p, _flushed(_flushed(load(p)) + both))


def ldtilecfg(tiles: int, config: int) -> None:
    for line in range(8 * ROWS):
        store(_at(tiles, 0) + BYTES * line, spread(_ZERO))


def tilerelease(tiles: int) -> None:
    pass
