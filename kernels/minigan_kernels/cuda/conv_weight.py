"""The gradient of a convolution's weight on the GPU.

    dw[o,c,k] = sum over n, i of g[n,o,i] x[n, c, i s - p + k d]

A matrix product whose long axis, along which it adds, counts pixels: what every other convolution
keeps in its result is summed away here. Images lie channel by channel in memory, so a pixel is a
row of both matrices, and tensor cores get it from shared memory with plain 32-bit loads.

- One array is read pixel by pixel (*dense*), of the other the neighbourhood (*wide*). With stride
  one each may be either; the one with few channels should be wide, its taps fill the tile.
- All layers of GANs but the first and last are bound by arithmetic. Those are bound by memory:
  their large array is read once.
- The sum over pixels is cut into parts to fill the GPU (`gemm.parts`).
- Groups of a few channels (depthwise) have a kernel without tiles, bound by the cache.

A NaN or an infinity in the dense array reaches all taps, those too that lie in the padding there,
where the definition skips them: zero times infinity is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from minigan_kernels.cuda import gemm
from minigan_kernels.cuda.device import REAL, Array, Device, type_name
from minigan_kernels.cuda.gemm import LARGE, LEAST, NARROW, SMALL, blocks
from minigan_kernels.cuda.memory_order import channels_last, to_second
from minigan_kernels.cuda.sources import Source
from minigan_kernels.precision import of_convolutions

CHUNK = 4  # channels that one copy moves
FEW = 64  # products per tap and group below which tiles would be empty
FEW_THREADS, FEW_AT_ONCE = 128, 16
PLACES = 2 * gemm.DEPTH * 16  # bytes

PRODUCTS = Source(
    "conv_weight.cu",
    tuple(
        f"weight_mma<{shape.name}, {chunk}>"
        for shape, chunks in (
            *((shape, (CHUNK,)) for shape in LARGE.values()),
            *((shape, (CHUNK, 1)) for shape in (*SMALL.values(), NARROW)),
        )
        for chunk in chunks
    ),
    apart=True,
    contains=("HMMA", "LDGSTS"),
)
OTHERS = Source(
    "conv_weight.cu",
    ("weight_plain<double>", *(f"weight_small_groups<{t}>" for t in REAL), *gemm.ADD_PARTS),
)
SOURCES = (PRODUCTS, OTHERS)

PARAMETERS = np.dtype(  # in the order of conv_weight.cu
    [
        *(("pixels", "i4"), ("channels", "i4", 2)),
        *((f, "i4") for f in ("m", "n", "part")),
        *((f, "i4", 3) for f in ("extent", "wide", "stride", "begin", "taps", "step")),
        *((f, "i4") for f in ("run", "size", "group_step", "m_step", "tap_step", "channel_step")),
    ]
)


class Launch(NamedTuple):
    """How one gradient is computed."""

    source: Source
    instance: str
    grid: tuple[int, int, int]
    threads: int
    shared: int
    parts: int
    turned: bool  # x is dense
    parameters: Any


def weight_grad(
    device: Device,
    x: Array,
    g: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """dw (O, C/groups, *k), a view of memory in the order O,*k,C/groups.

    Parameters
    ----------
    x : (N, C, *spatial), the input of `conv`.
    g : (N, O, *out), the gradient at its output.
    """
    x, g = channels_last(device, x), channels_last(device, g)
    options = tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation), groups
    terms = gemm.terms(of_convolutions())
    how = _launch(x.shape, g.shape, type_name(x.dtype), *options, terms)
    dw = device.empty((g.shape[1], *kernel_size, x.shape[1] // groups), x.dtype)
    work = dw if how.parts == 1 else device.empty((how.parts, dw.size), x.dtype)
    dense, wide = (x, g) if how.turned else (g, x)
    device.launch(
        *(how.source, how.instance, how.grid, (how.threads,)),
        *(how.parameters, dense, wide, work),
        shared=how.shared,
    )
    if how.parts > 1:
        gemm.add_parts(device, OTHERS, work, dw)
    return to_second(dw)


@lru_cache(maxsize=4096)
def _launch(
    x: tuple[int, ...],
    g: tuple[int, ...],
    real: str,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    terms: int,
) -> Launch:
    inputs, outputs, taps = x[1] // groups, g[1] // groups, prod(kernel_size)
    stride = tuple(s if n > 1 else 1 for s, n in zip(stride, g[2:], strict=True))
    few = groups > 1 and inputs * outputs <= FEW
    cost = prod(g[2:]) * _covered(outputs, taps * inputs)
    cost_turned = prod(x[2:]) * _covered(inputs, taps * outputs)
    turned = not few and set(stride) == {1} and 2 * cost_turned < cost
    p = np.zeros((), PARAMETERS)
    p["size"], p["group_step"] = g[1] * taps * inputs, outputs * taps * inputs
    p["tap_step"], p["taps"] = inputs, _three(kernel_size, 1)
    if turned:
        _set(p, x, g, inputs, outputs, taps)
        p["m_step"], p["channel_step"] = 1, taps * inputs
        p["stride"] = 1
        p["begin"], p["step"] = _three(padding, 0), -_three(dilation, 0)
    else:
        _set(p, g, x, outputs, inputs, taps)
        p["m_step"], p["channel_step"] = taps * inputs, 1
        p["stride"] = _three(stride, 1)
        p["begin"], p["step"] = -_three(padding, 0), _three(dilation, 0)
    if few:
        return _small_groups(p, real)
    return _tiles(p, real, groups, terms, turned)


def _set(
    p: Any, dense: tuple[int, ...], wide: tuple[int, ...], m: int, part: int, taps: int
) -> None:
    p["pixels"], p["channels"] = dense[0] * prod(dense[2:]), (dense[1], wide[1])
    p["m"], p["n"], p["part"] = m, taps * part, part
    p["extent"], p["wide"] = _three(dense[2:], 1), _three(wide[2:], 1)


def _three(values: Sequence[int], fill: int) -> np.ndarray[Any, Any]:
    """One number for depth, height and width."""
    return np.array((fill,) * (3 - len(values)) + tuple(values), np.int32)


def _covered(m: int, n: int) -> int:
    """Numbers that the tiles of a product cover."""
    across = NARROW.bn if n <= NARROW.bn else gemm.SIDE
    return blocks(m, gemm.SIDE) * gemm.SIDE * blocks(n, across) * across


def _tiles(p: Any, real: str, groups: int, terms: int, turned: bool) -> Launch:
    m, n, pixels, size = (int(p[f]) for f in ("m", "n", "pixels", "size"))
    if real == "double":
        source, instance, bm, bn = OTHERS, "weight_plain<double>", gemm.SIDE, gemm.SIDE
        threads, shared = gemm.PLAIN_THREADS, 2 * gemm.SIDE * gemm.STEPS * 8
        steps, least, at_once = pixels, LEAST * gemm.DEPTH, 2
    else:
        chunk = CHUNK if p["part"] % CHUNK == 0 else 1
        shape = NARROW if n <= NARROW.bn else SMALL[terms]
        if chunk == CHUNK and m > SMALL[terms].bm and n > SMALL[terms].bn:
            shape = LARGE[terms]
        source, instance, bm, bn = PRODUCTS, f"weight_mma<{shape.name}, {chunk}>", *shape[:2]
        threads, shared = shape.threads, shape.shared(False, False) + PLACES
        steps, least, at_once = blocks(pixels, gemm.DEPTH), LEAST, shape.at_once
    tiles = blocks(m, bm) * blocks(n, bn)
    count, p["run"] = gemm.parts(tiles * groups, steps, size, at_once, least)
    return Launch(source, instance, (tiles, count, groups), threads, shared, count, turned, p[()])


def _small_groups(p: Any, real: str) -> Launch:
    size, width = int(p["size"]), max(1, int(p["extent"][2]))
    tiles, rows = blocks(size, FEW_THREADS), int(p["pixels"]) // width
    count, p["run"] = gemm.parts(tiles, rows, size, FEW_AT_ONCE, 1)
    instance = f"weight_small_groups<{real}>"
    return Launch(OTHERS, instance, (tiles, count, 1), FEW_THREADS, 0, count, False, p[()])
