"""N,C,*S arrays as (outer, places, inner), contiguous, for kernels that work place by place.

Channels-last memory is (N, places, C): neighbouring numbers belong to one place and are handled
alike. Channels-first memory is (N C, places, 1). Both are the same loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from minigan_kernels.cuda.device import MOST, Array, Device
from minigan_kernels.cuda.memory_order import channels_last, is_channels_last, to_last, to_second

THREADS = 256


def place_by_place(device: Device, x: Array) -> tuple[Array, bool]:
    """x as (outer, places, inner), and whether its channels lie last; other orders are copied."""
    n, c, *spatial = x.shape
    places = math.prod(spatial)
    if x.flags.c_contiguous and not is_channels_last(x):
        return x.reshape(n * c, places, 1), False
    return to_last(channels_last(device, x)).reshape(n, places, c), True


def as_maps(y: Array, last: bool, n: int, c: int, spatial: Sequence[int]) -> Array:
    """(outer, places, inner) as N,C,*spatial, the inverse of `place_by_place`."""
    if not last:
        return y.reshape(n, c, *spatial)
    return to_second(y.reshape(n, *spatial, c))


def vector_size(inner: int, itemsize: int) -> int:
    """Numbers that a thread handles together, if rows have `inner` of them."""
    most = 16 // itemsize
    return most if inner % most == 0 else 1


def blocks(threads: int, each: int = 1) -> tuple[int]:
    """The grid for so many items, `each` per thread."""
    return (-(-threads // (THREADS * each)),)


def pieces(length: int, size: int, most: int = MOST) -> Iterator[slice]:
    """Parts of an axis such that each has at most `most` numbers: kernels count in 32 bits.

    Parameters
    ----------
    size : numbers (of the longest array) at one place of the axis.
    """
    step = max(1, most // max(1, size))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
