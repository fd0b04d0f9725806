"""Pixel norm on the GPU: one kernel each, which waits for memory (the second read is cached)."""

from __future__ import annotations

from functools import lru_cache
from math import prod

from minigan_kernels.cuda.device import Array, Device, type_name
from minigan_kernels.cuda.memory_order import dense, in_order_of, like, order_of
from minigan_kernels.cuda.planes import THREADS, Walk, walk_at_once
from minigan_kernels.cuda.reduce import SIZES, SUMS
from minigan_kernels.cuda.sources import Source

KERNELS = Source(
    "pixel_norm.cu",
    tuple(f"{k}<{t}, {v}>" for k in ("pixel_norm", "pixel_norm_backward") for t, v in SIZES),
)
SOURCES = (KERNELS,)


def pixel_norm(device: Device, x: Array, eps: float) -> Array:
    """x / sqrt(mean over axis 1 of x^2 + eps)."""
    x = dense(x)
    y = like(device, x)
    _launch(device, "pixel_norm", x, y, eps=eps)
    return y


def pixel_norm_backward(device: Device, g: Array, x: Array, eps: float) -> Array:
    """r (g - x r^2 mean(g x)),   r = 1 / sqrt(mean over axis 1 of x^2 + eps)."""
    x = dense(x)
    dx = like(device, x)
    _launch(device, "pixel_norm_backward", in_order_of(device, x, g), x, dx, eps=eps)
    return dx


def _launch(device: Device, kernel: str, *arrays: Array, eps: float) -> None:
    """`arrays` have one shape and memory order."""
    x = arrays[0]
    if x.size == 0:
        return
    order = order_of(x)
    assert order is not None
    way = _walk(x.shape, order, x.itemsize)
    device.launch(
        KERNELS,
        f"{kernel}<{type_name(x.dtype)}, {way.vector}>",
        (way.blocks,),
        (THREADS,),
        *(way.structure, *arrays, float(eps)),
        shared=way.shared(SUMS),
    )


@lru_cache(maxsize=1024)
def _walk(shape: tuple[int, ...], order: tuple[int, ...], item: int) -> Walk:
    place = order.index(1)
    before, after = (prod(shape[i] for i in part) for part in (order[:place], order[place + 1 :]))
    return walk_at_once(before, shape[1], after, item)
