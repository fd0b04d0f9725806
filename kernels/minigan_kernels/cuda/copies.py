"""Copies of arrays into parts of another one, on the GPU."""

from __future__ import annotations

from collections.abc import Sequence

from minigan_kernels.cuda.device import Array, Device
from minigan_kernels.cuda.memory_order import dense, like
from minigan_kernels.cuda.sources import Source

SOURCES: tuple[Source, ...] = ()  # the copies are CuPy's


def concat(device: Device, xs: Sequence[Array], axis: int) -> Array:
    """Arrays one after another along an axis, in the memory order of the first."""
    lengths = [x.shape[axis] for x in xs]
    shape = list(xs[0].shape)
    shape[axis] = sum(lengths)
    y = like(device, dense(xs[0]), shape=shape)
    start = 0
    for x, length in zip(xs, lengths, strict=True):
        y[(slice(None),) * axis + (slice(start, start + length),)] = x
        start += length
    return y
