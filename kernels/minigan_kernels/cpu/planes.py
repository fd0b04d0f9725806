"""How a normalisation walks through memory: as P x R x Q numbers, summed over R.

Arrays N,C,*spatial may lie in memory in any order of axes; channels-last (N,H,W,C) and
channels-first (N,C,H,W) are the usual two. Put the axes in memory order, merge neighbours, and
both become one block whose middle is summed over:

    channels-first   P = N,C   R = H,W   Q = 1      each plane is contiguous
    channels-last    P = N     R = H,W   Q = C      C planes lie interleaved

The sums are per plane (p,q), hence few: whatever else a norm reduces over (N for batch norm, C
for layer norm) is joined from these small arrays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.layout import dense, memory_order

Array = npt.NDArray[Any]

SHORT = 64  # a contiguous run shorter than this is not worth a loop of its own
BLOCK = 1 << 17  # elements of R x Q that are read twice while they are in the cache


@dataclass(frozen=True)
class Planes:
    """The P,R,Q view of arrays of one shape and memory order."""

    order: tuple[int, ...]  # axes in memory order
    back: tuple[int, ...]  # the order that undoes it
    small: tuple[int, ...]  # the shape with 1 at the axes of R: one number per plane
    packed_small: tuple[int, ...]  # `small` in memory order
    size: tuple[int, int, int]  # P, R, Q

    @staticmethod
    def of(x: Array, reducible: Iterable[int]) -> Planes:
        """Choose R among the axes `reducible`: one run of neighbours in x's memory."""
        return planes_of(x.shape, memory_order(x), tuple(reducible), BLOCK)

    def flat(self, x: Array) -> Array:
        """`x` as one row of P*R*Q numbers, copied only when it lies in another order."""
        x = dense(x, self.order)
        return (x if x.flags.writeable else x.copy()).reshape(-1)

    def flat_small(self, small: Array, dtype: Any) -> Array:
        """Numbers that are constant along R (broadcast to `self.small`) as one row of P*Q."""
        full = np.empty(self.packed_small, dtype)
        full[...] = small.transpose(self.order)
        return full.reshape(-1)

    def unflat(self, row: Array, shape: tuple[int, ...]) -> Array:
        """A row back as an array of `shape`, which is x's shape or `self.small`."""
        return row.reshape([shape[i] for i in self.order]).transpose(self.back)

    def alongside(self, x: Array) -> Array:
        """The same array, its axes in memory order: NumPy then walks through it in step."""
        return dense(x, self.order).transpose(self.back)


@lru_cache(maxsize=1024)
def planes_of(
    shape: tuple[int, ...], order: tuple[int, ...], reducible: tuple[int, ...], block: int
) -> Planes:
    """`Planes.of` for arrays whose axes lie in `order`; R Q is at most `block` if possible."""
    ends = [i in reducible or shape[i] == 1 for i in order]  # positions that R may contain
    sides = [shape[i] for i in order]
    stop = len(order)
    while stop and not ends[stop - 1]:
        stop -= 1
    if stop == len(order):
        start = stop
        while start and ends[start - 1]:
            start -= 1
        elsewhere = any(ok and n > 1 for ok, n in zip(ends[:start], sides[:start], strict=True))
        if prod(sides[start:]) < SHORT and elsewhere:  # this run becomes a part of Q
            stop = start
            while not ends[stop - 1]:
                stop -= 1
    after = prod(sides[stop:])
    start, length = stop, 1
    while start and ends[start - 1] and (length == 1 or length * sides[start - 1] * after <= block):
        start -= 1
        length *= sides[start]
    small = tuple(1 if order.index(i) in range(start, stop) else n for i, n in enumerate(shape))
    return Planes(
        order,
        tuple(order.index(i) for i in range(len(order))),
        small,
        tuple(small[i] for i in order),
        (prod(sides[:start]), length, after),
    )
