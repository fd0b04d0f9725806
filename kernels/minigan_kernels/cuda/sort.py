"""Which contributions hit each target: the sorted list behind gradients that gather.

Adding numbers to places that data choose would need atomics, whose order, and with it the last
bit, differs from run to run. Instead the contributions are sorted by their targets once, stably,
and every target adds up its own, in order (`mg_segments.cuh`). The sort is bound by memory: about
20 bytes per contribution and 8 bits of the key.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigan_kernels.cuda.device import Array, Device
from minigan_kernels.cuda.sources import Source

KERNELS = Source("sort.cu", ("count_digits", "add_earlier_tiles", "move_keys", "mark_segments"))
SOURCES = (KERNELS,)

THREADS, TILE, DIGITS, BITS = 256, 4096, 256, 8  # as in sort.cu
_COUNTS = 4 * DIGITS * THREADS // 32  # bytes: a number per warp and digit
BLOCK = 128  # contributions that are added up together where a target has many; mg_segments.cuh


@dataclass(frozen=True)
class Segments:
    """Contributions sorted by target.

    Attributes
    ----------
    keys, order : (count,) int32, the contributions' keys and numbers.
    span : (targets, 2) int32, begin and end of a target's part of `order`.
    """

    keys: Array
    order: Array
    span: Array

    @property
    def blocks(self) -> int:
        """Number of whole blocks of the list."""
        count: int = self.order.size
        return count // BLOCK


def segments(
    device: Device, keys: Array, groups: int, targets: int, outside: bool = False
) -> Segments:
    """Sort contributions by target.

    Parameters
    ----------
    keys : (count,) int32, >= 0; contributions are numbered group by group, and the target of one
        in group n with key k is n targets + k.
    groups : number of groups; all have count / groups contributions.
    targets : of one group.
    outside : whether there are keys k = targets, which have no target.
    """
    count = keys.size
    span = device.xp.zeros((groups * targets, 2), np.int32)
    if not count:
        return Segments(keys, keys, span)
    keys, order = sort(device, keys, targets if outside else targets - 1)
    grid = (-(-count // THREADS),)
    sizes = count, count // groups, targets
    device.launch(KERNELS, "mark_segments", grid, (THREADS,), keys, order, *sizes, span)
    return Segments(keys, order, span)


def sort(device: Device, keys: Array, largest: int) -> tuple[Array, Array]:
    """Keys in [0, largest], sorted, and where each came from; stable."""
    count = keys.size
    tiles = -(-count // TILE)
    counts = device.empty((DIGITS, tiles), np.int32)
    totals = device.empty((DIGITS,), np.int32)
    order = None
    for shift in range(0, max(1, largest.bit_length()), BITS):
        to = device.empty((count,), np.int32), device.empty((count,), np.int32)
        part = count, shift, tiles
        _launch(device, "count_digits", tiles, keys, *part, counts, shared=_COUNTS)
        _launch(device, "add_earlier_tiles", DIGITS, counts, tiles, totals, shared=THREADS)
        moved = keys, order, *part, counts, totals, *to
        _launch(device, "move_keys", tiles, *moved, shared=_COUNTS + THREADS)
        keys, order = to
    return keys, order


def _launch(device: Device, kernel: str, blocks: int, *args: object, shared: int) -> None:
    device.launch(KERNELS, kernel, (blocks,), (THREADS,), *args, shared=shared)
