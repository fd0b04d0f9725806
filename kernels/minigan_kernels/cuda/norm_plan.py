"""How a normalisation of arrays of one shape and memory order is cut into kernels.

The kernels know planes of P x R x Q numbers (`planes.py`); here the axes are sorted out. Inside a
plane scale and shift are one number, or they are maps with a number for each of x. The statistics
of some planes are joined: those of N for batch norm, those of C for layer norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

from minigan_kernels.cuda.device import integers
from minigan_kernels.cuda.planes import (
    Picture,
    Side,
    Walk,
    fits_at_once,
    picture,
    walk,
    walk_at_once,
)
from minigan_kernels.cuda.reduce import join_of

MEASURE, APPLY = 1, 2  # what a kernel does
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The kernels of a norm, forward and backward."""

    item: int  # bytes of a number
    order: Shape  # axes in memory order
    back: Shape  # the order that undoes it
    walk: Walk
    groups: tuple[int, int, int, int]  # planes as [A][B][D][E], statistics joined over B and E
    joined: tuple[int, int, int]  # B, D, E of the cells
    statistics: Shape  # the shape of mean and rstd, axes in memory order
    count: int  # numbers of a statistic
    at_once: bool  # a block sees all of its statistics
    maps: bool  # scale and shift are maps
    shared: bool  # the same maps for all p
    period: int  # planes after which other scales repeat themselves
    affine: Shape | None  # the shape that scale and shift must have, axes in memory order

    def structure(self, steps: int) -> Any:
        """`Norm` of the kernels."""
        return self._structures[steps - 1]

    @cached_property
    def _structures(self) -> list[Any]:
        _, among, kept, inside = self.groups
        fields = self.walk.fields | {"among": among, "kept": kept, "inside": inside}
        fields |= {"period": self.period, "shared": int(self.shared)}
        return [integers(**fields, steps=steps) for steps in (MEASURE, APPLY, MEASURE | APPLY)]

    @property
    def results(self) -> int:
        """How many statistics there are."""
        return self.groups[0] * self.groups[2]

    @cached_property
    def affine_join(self) -> tuple[Any, tuple[int]]:
        """From cells to the gradients of scales that planes share."""
        planes = self.walk.count * self.walk.width
        return join_of(self.period, (planes // self.period, self.period, self.walk.chunks))

    @cached_property
    def map_walk(self) -> Walk:
        """From numbers to the gradients of maps that all p share."""
        inner = self.walk.length * self.walk.width
        return walk(1, self.walk.count, inner, self.item)


@lru_cache(maxsize=1024)
def plan_of(
    shape: Shape, order: Shape, axes: Shape, affine: Shape | None, item: int
) -> Plan | None:
    """The plan for x of this shape and memory order; None if x must have another order.

    Parameters
    ----------
    axes : those of the statistics.
    affine : the shape of scale and shift, of as many axes as x.
    """
    kept = [(i, affine is not None and affine[i] != 1) for i in order if shape[i] > 1]
    varies = [v for _, v in kept]
    reduced = [i in axes for i, _ in kept]
    maps = any(reduced) and all(v for v, r in zip(varies, reduced, strict=True) if r)
    sides = [
        Side(shape[i], r, r and (maps or not v)) for (i, v), r in zip(kept, reduced, strict=True)
    ]
    found = picture(sides)
    if found is None:
        return None
    lengths = [s.length for s in sides]
    among = [(n, v) for i, (n, v) in enumerate(zip(lengths, varies, strict=True))
             if not found.start <= i < found.stop]  # fmt: skip
    period = 0 if maps or affine is None else _suffix(among)
    spread = maps and not _is_map(lengths, varies, found)
    if period == -1:
        spread, period = True, found.planes
    if period <= 0 or found.size[2] % period == 0:
        found = found.with_wide_pixels()
    way, at_once = _walk(found, item)
    wanted = None if affine is None else tuple(affine[i] for i in order)
    if spread:
        run = [kept[i][0] for i in range(found.start, found.stop)]
        wanted = tuple(1 if i in run and not maps else shape[i] for i in order)
    return Plan(
        item,
        order,
        tuple(order.index(i) for i in range(len(order))),
        way,
        found.groups,
        found.joined(way.chunks),
        tuple(1 if i in axes else shape[i] for i in order),
        prod(shape[i] for i in axes),
        at_once,
        maps,
        maps and not spread and not all(varies),
        period,
        wanted,
    )


def _walk(found: Picture, item: int) -> tuple[Walk, bool]:
    """The walk, and whether its blocks see all of their statistics."""
    if found.groups[1] == found.groups[3] == 1:
        one = walk_at_once(*found.size, item)
        if fits_at_once(one):
            return one, True
    return walk(*found.size, item), False


def _suffix(among: list[tuple[int, bool]]) -> int:
    """Product of the lengths of the axes that vary if these are the last ones, else -1."""
    marks = [v for _, v in among]
    return prod(n for n, v in among if v) if marks == sorted(marks) else -1


def _is_map(lengths: list[int], varies: list[bool], found: Picture) -> bool:
    """Whether maps have a number for each of x, or for each of one p."""
    return all(varies) or (all(varies[found.start :]) and not any(varies[: found.start]))
