"""Matrix products on the GPU: c[.., i, j] = sum over k of a[.., i, k] b[.., k, j].

The kernels read any strides, so transposed and broadcast views cost no copy: 16 bytes at a time if
one axis of a matrix is contiguous and both its length and the other stride are multiples of four
numbers, else number by number. Linear layers are accurate to float32 rounding (3xTF32) unless the
precision class is "tf32".

A product of (m, k) and (k, n) does 2 m n k operations on m k + k n + m n numbers: large ones are
bound by the tensor cores, those with few rows or columns (m or n at most 16) by memory, which they
read once.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from minigan_kernels.cuda import gemm
from minigan_kernels.cuda.device import Array, Device, type_name
from minigan_kernels.cuda.gemm import LARGE, LEAST, NARROW, SMALL, blocks
from minigan_kernels.cuda.sources import NoKernel, Source
from minigan_kernels.precision import of_products

AXES = 4  # leading axes that the kernels know

PRODUCTS = Source(
    "matmul.cu",
    tuple(
        f"product_mma<{shape.name}, {deep_a}, {deep_b}>"
        for shape in (*LARGE.values(), *SMALL.values(), NARROW)
        for deep_a in ("false", "true")
        for deep_b in ("false", "true")
    ),
    apart=True,
    contains=("HMMA", "LDGSTS"),
)
OTHERS = Source("matmul.cu", ("product_plain<double>", *gemm.ADD_PARTS))
SOURCES = (PRODUCTS, OTHERS)

_STRIDES = ("a_row", "a_k", "b_k", "b_column", "c_row", "c_column")
PARAMETERS = np.dtype(
    [
        *((f, "i8") for f in _STRIDES),
        *((f, "i8", AXES) for f in ("a_lead", "b_lead")),
        *(("lead", "i4", AXES), ("m", "i4"), ("n", "i4"), ("k", "i4"), ("run", "i4")),
    ]
)

Shaped = tuple[int, ...]
Axis = tuple[int, int, int]  # length, stride in a, stride in b


class Launch(NamedTuple):
    """How one product is computed."""

    source: Source
    instance: str
    grid: tuple[int, int]
    threads: int
    shared: int
    shape: Shaped  # of the result
    turned: bool  # b^T a^T instead of a b
    parameters: Any


def matmul(device: Device, a: Array, b: Array) -> Array:
    """Products of the last two axes; leading axes are broadcast, as in np.matmul.

    Parameters
    ----------
    a : (..., n, k)
    b : (..., k, m)
    """
    if a.dtype not in (np.float32, np.float64):
        raise NoKernel(f"matmul of {a.dtype}")
    kind = a.itemsize, type_name(a.dtype), gemm.terms(of_products())
    how = _launch(a.shape, a.strides, b.shape, b.strides, *kind)
    if how is None:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return matmul(device, _spread(device, a, lead), _spread(device, b, lead))
    c = device.empty(how.shape, a.dtype)
    count = how.grid[1]
    work = c if count == 1 else device.empty((count, c.size), a.dtype)
    device.launch(
        *(how.source, how.instance, how.grid, (how.threads,)),
        *(how.parameters, *((b, a) if how.turned else (a, b)), work),
        shared=how.shared,
    )
    if count > 1:
        gemm.add_parts(device, OTHERS, work, c)
    return c


def _spread(device: Device, x: Array, lead: Shaped) -> Array:
    """A copy with all its leading axes, for stacks that no few strides describe."""
    y = device.empty((*lead, *x.shape[-2:]), x.dtype)
    y[...] = x
    return y


@lru_cache(maxsize=4096)
def _launch(
    a: Shaped, a_strides: Shaped, b: Shaped, b_strides: Shaped, item: int, real: str, terms: int
) -> Launch | None:
    """None if there are too many leading axes."""
    lead = np.broadcast_shapes(a[:-2], b[:-2])
    (m, k), n = a[-2:], b[-1]
    shape = (*lead, m, n)
    *a_lead, a_row, a_k = _strides(a, a_strides, item, len(shape))
    *b_lead, b_k, b_column = _strides(b, b_strides, item, len(shape))
    axes = _merged(zip(lead, a_lead, b_lead, strict=True))
    while axes and axes[-1][2] == 0 and (m == 1 or axes[-1][1] == m * a_row):
        length, step, _ = axes.pop()  # one b for many a: they are rows of one matrix
        m, a_row = m * length, step if m == 1 else a_row
    if len(axes) > AXES:
        return None
    turned = m < n and m <= NARROW.bn
    left, right = (a_row, a_k), (b_column, b_k)
    p = np.zeros((), PARAMETERS)
    p["c_row"], p["c_column"] = n, 1
    if turned:
        axes = [(length, of_b, of_a) for length, of_a, of_b in axes]
        m, n, left, right = n, m, right, left
        p["c_row"], p["c_column"] = 1, m
    p["m"], p["n"], p["k"] = m, n, k
    (p["a_row"], p["a_k"]), (p["b_column"], p["b_k"]) = left, right
    fill = [(1, 0, 0)] * (AXES - len(axes))
    p["lead"], p["a_lead"], p["b_lead"] = np.array(fill + axes).T
    return _tiles(p, shape, real, terms, turned)


def _tiles(p: Any, shape: Shaped, real: str, terms: int, turned: bool) -> Launch:
    m, n, k, products = int(p["m"]), int(p["n"]), int(p["k"]), prod(map(int, p["lead"]))
    if real == "double":
        source, instance, bm, bn = OTHERS, "product_plain<double>", gemm.SIDE, gemm.SIDE
        threads, shared = gemm.PLAIN_THREADS, 2 * gemm.SIDE * gemm.STEPS * 8
        steps, least, at_once = k, LEAST * gemm.DEPTH, 2
    else:
        tile, large = NARROW if n <= NARROW.bn else SMALL[terms], LARGE[terms]
        fills = products * blocks(m, large.bm) * blocks(n, large.bn) >= gemm.PROCESSORS
        if m > tile.bm and n > tile.bn and fills:
            tile = large
        deep = _deep(p["a_row"], p["a_k"]), _deep(p["b_column"], p["b_k"])
        names = ("true" if d else "false" for d in deep)
        source, instance = PRODUCTS, f"product_mma<{tile.name}, {', '.join(names)}>"
        threads, shared, (bm, bn) = tile.threads, tile.shared(*deep), tile[:2]
        steps, least, at_once = blocks(k, gemm.DEPTH), LEAST, tile.at_once
    tiles = products * blocks(m, bm) * blocks(n, bn)
    count, p["run"] = gemm.parts(tiles, steps, prod(shape), at_once, least)
    return Launch(source, instance, (tiles, count), threads, shared, shape, turned, p[()])


def _deep(across: int, along: int) -> bool:
    """Whether numbers lie closer together along k."""
    return bool(along == 1 or (across != 1 and abs(along) < abs(across)))


def _strides(shape: Shaped, strides: Shaped, item: int, axes: int) -> Shaped:
    """In numbers: 0 along axes of length one, and along those in front that the array lacks."""
    own = tuple(s // item if n != 1 else 0 for n, s in zip(shape, strides, strict=True))
    return (0,) * (axes - len(own)) + own


def _merged(axes: Iterable[Axis]) -> list[Axis]:
    """The same walk through both arrays with as few axes as can be."""
    merged: list[Axis] = []
    for length, a, b in axes:
        if length == 1:
            continue
        if merged and merged[-1][1] == length * a and merged[-1][2] == length * b:
            merged[-1] = merged[-1][0] * length, a, b
        else:
            merged.append((length, a, b))
    return merged
