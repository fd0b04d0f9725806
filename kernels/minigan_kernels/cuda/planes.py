"""How reductions walk through memory: as P x R x Q numbers, reduced over R.

Put the axes of an array in memory order, merge neighbours, and the usual orders become one block
whose middle is reduced (`mg_planes.cuh` walks through it):

    channels-first   P = N,C   R = H,W   Q = 1      each plane is contiguous
    channels-last    P = N     R = H,W   Q = C      C planes lie interleaved

R is cut into chunks, so that there is work for all of the GPU. Every plane and chunk leaves a cell
(two sums, or a count, a sum and squares), few beside the numbers. What else is reduced over (N for
batch norm, C for layer norm) is joined from the cells, which are [outer A][B][D][E] with B and E
joined: axes that alternate more often between kept and reduced are first copied into another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from minigan_kernels.cuda.device import integers

THREADS = 256  # of a block
WARP = 32
VECTOR = 4  # floats of one access
SHORT = 32  # a contiguous run shorter than this is not worth a walk along it
ENOUGH = 264  # blocks that fill a GPU of 132 processors, two on each
MANY = 3 * ENOUGH  # blocks that large arrays are cut into
ROUNDS = 4  # accesses of a thread that make a chunk worth its start
AT_ONCE, AT_MOST = 16, 64  # accesses of a thread that does all of its planes, alone and among many
PIXELS = 64  # at most so many pixels of few channels become one


@dataclass(frozen=True)
class Walk:
    """A walk through (count, length, width) = (P, R, Q) numbers."""

    count: int
    length: int
    width: int
    vector: int  # numbers of an access
    lanes: int
    each: int
    chunks: int
    tiles: int

    @property
    def along(self) -> bool:
        """Whether lanes run along R."""
        return self.width == 1

    @property
    def rows(self) -> int:
        return THREADS // self.lanes

    @property
    def blocks(self) -> int:
        planes = -(-self.count // self.rows) if self.along else self.count * self.tiles
        return planes * self.chunks

    @property
    def cells(self) -> int:
        """One for every plane and chunk."""
        return self.count * self.chunks * self.width

    @property
    def rounds(self) -> int:
        """Accesses of a thread."""
        return -(-self.each // (self.lanes * self.vector if self.along else self.rows))

    @cached_property
    def fields(self) -> dict[str, int]:
        """The structure `Planes` of the kernels."""
        return {
            "count": self.count,
            "length": self.length,
            "width": self.width,
            "along": int(self.along),
            "lane_bits": self.lanes.bit_length() - 1,
            "each": self.each,
            "chunks": self.chunks,
            "tiles": self.tiles,
        }

    @cached_property
    def structure(self) -> Any:
        """The same as the argument of a launch."""
        return integers(**self.fields)

    def shared(self, cell: int) -> int:
        """Bytes of shared memory in which a block joins cells of so many bytes."""
        return THREADS * cell * (1 if self.along else self.vector)


def walk(count: int, length: int, width: int, item: int) -> Walk:
    """A walk whose planes are cut into chunks so that many blocks have work."""
    if width == 1:
        lanes = _lanes_along(length, item)
    else:
        packs = width // _vector(width, item)
        choices = _powers(packs, 8, THREADS)  # few: the threads beside them share their cells
        long = [n for n in choices if THREADS // n * ROUNDS <= length] or choices[-1:]
        lanes = min(long, key=lambda n: (-(-packs // n) * n, n))
    whole = _walk(count, length, width, item, lanes, 1)
    step = whole.each // max(1, whole.rounds)
    most = max(1, length // (step * ROUNDS))
    return _walk(count, length, width, item, lanes, min(most, max(1, MANY // whole.blocks)))


def walk_at_once(count: int, length: int, width: int, item: int) -> Walk:
    """A walk whose blocks see whole planes."""
    if width == 1:
        return _walk(count, length, width, item, _lanes_along(length, item), 1)
    vector = _vector(width, item)
    packs = width // vector
    choices = _powers(packs, 8 // vector, THREADS)  # 32 bytes are what memory gives at least
    long = [n for n in choices if THREADS // n <= length] or choices[-1:]
    enough = [n for n in long if count * -(-packs // n) >= ENOUGH]
    return _walk(count, length, width, item, max(enough, default=long[0]), 1)


def fits_at_once(one: Walk) -> bool:
    """Whether a single visit of blocks to their planes is faster than several kernels."""
    return one.rounds <= (AT_MOST if one.blocks >= ENOUGH else AT_ONCE)


def _vector(run: int, item: int) -> int:
    return VECTOR if item == 4 and run % VECTOR == 0 else 1


def _lanes_along(length: int, item: int) -> int:
    """So many that a thread has some accesses of a plane, 32 bytes side by side at least."""
    vector = _vector(length, item)
    packs = length // vector
    return min(max(_power(-(-packs // 4)), min(_power(packs), 8 // vector)), THREADS)


def _power(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


def _powers(packs: int, least: int, most: int) -> list[int]:
    """Powers of two for the lanes along `packs` accesses."""
    top = min(most, _power(packs))
    return [1 << i for i in range(min(least, top).bit_length() - 1, top.bit_length())]


def _walk(count: int, length: int, width: int, item: int, lanes: int, chunks: int) -> Walk:
    vector = _vector(length if width == 1 else width, item)
    step = lanes * vector if width == 1 else THREADS // lanes
    each = -(-length // (chunks * step)) * step
    tiles = 1 if width == 1 else -(-width // (vector * lanes))
    return Walk(count, length, width, vector, lanes, each, max(1, -(-length // each)), tiles)


@dataclass(frozen=True)
class Side:
    """An axis, in memory order."""

    length: int
    reduced: bool
    free: bool  # whether R may contain it


@dataclass(frozen=True)
class Picture:
    """The P x R x Q picture of some axes, and how its planes are grouped: [A][B][D][E]."""

    size: tuple[int, int, int]  # P, R, Q
    groups: tuple[int, int, int, int]  # sizes A, B, D, E of the planes
    holder: int  # the group that R belongs to: 1 (B) or 3 (E)
    start: int  # the sides of R
    stop: int

    @property
    def planes(self) -> int:
        return self.size[0] * self.size[2]

    def joined(self, chunks: int) -> tuple[int, int, int]:
        """Sizes B, D, E of the cells."""
        _, b, d, e = self.groups
        return (b * chunks, d, e) if self.holder == 1 else (b, d, e * chunks)

    def with_wide_pixels(self) -> Picture:
        """With some neighbours in R taken for one where Q is small and does not fill vectors."""
        count, length, width = self.size
        if width == 1 or width % VECTOR == 0 or width > 4 * SHORT:
            return self
        for k in (n for n in (64, 32, 16, 8, 4, 2) if n <= PIXELS):
            if length % k == 0 and k * width <= THREADS:
                groups = list(self.groups)
                groups[self.holder] *= k
                size = (count, length // k, width * k)
                return Picture(size, tuple(groups), self.holder, self.start, self.stop)  # type: ignore[arg-type]
        return self


def picture(sides: Sequence[Side]) -> Picture | None:
    """Choose R among the free axes; None if kept and reduced axes alternate too often."""
    start, stop = _run(sides)
    groups, k, holder = [1, 1, 1, 1], 0, 1
    for i, side in enumerate(sides):
        k += side.reduced != (k % 2 == 1)
        if k > 3:
            return None
        if start <= i < stop:
            holder = k
        else:
            groups[k] *= side.length
    before, within, after = sides[:start], sides[start:stop], sides[stop:]
    sizes = [prod(s.length for s in part) for part in (before, within, after)]
    return Picture(tuple(sizes), tuple(groups), holder, start, stop)  # type: ignore[arg-type]


def _run(sides: Sequence[Side]) -> tuple[int, int]:
    """The run of free axes to reduce over: the last one if it is long, else one before it."""
    stop = len(sides)
    while stop and not sides[stop - 1].free:
        stop -= 1
    start = _begin(sides, stop)
    if stop == len(sides) and prod(s.length for s in sides[start:]) < SHORT:
        earlier = start
        while earlier and not sides[earlier - 1].free:
            earlier -= 1
        if earlier:
            return _begin(sides, earlier), earlier
    return start, stop


def _begin(sides: Sequence[Side], stop: int) -> int:
    while stop and sides[stop - 1].free:
        stop -= 1
    return stop
