"""Convolutions as tables of taps.

`mg_conv.cuh` has the formula. A `Geometry` is the table: for a convolution one phase with all taps,
for a transposed one a phase for every remainder of the output position by the stride, with the taps
that meet an input there. All have three spatial axes; missing ones have length one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from minigan_kernels.reference.conv import conv_length, conv_transpose_length

TAPS, PHASES = 64, 8  # that are passed by value; more lie in device memory


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where results and their taps lie; `phases` and `taps` are rows of mg::Phase and mg::Tap."""

    spatial: tuple[int, ...]
    out: tuple[int, ...]
    in_step: tuple[int, ...]
    out_step: tuple[int, ...]
    weight_taps: int
    phases: np.ndarray[Any, Any]
    taps: np.ndarray[Any, Any]

    @property
    def positions(self) -> int:
        """Positions of the largest phase in an image."""
        return int(self.phases[:, 5:].prod(1).max(initial=0))

    @property
    def most_taps(self) -> int:
        """Taps of the phase that has most."""
        return int(self.phases[:, 1].max(initial=0))

    @property
    def by_value(self) -> bool:
        """Whether the table fits into the arguments of a kernel."""
        return len(self.taps) <= TAPS and len(self.phases) <= PHASES


@dataclass(frozen=True)
class Phase:
    """Outputs first, first + step, ... of one axis, and its taps: (offset in the input, number)."""

    first: int
    count: int
    taps: tuple[tuple[int, int], ...]


@lru_cache(maxsize=1024)
def conv_geometry(
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Geometry:
    """Output i reads the inputs i s + (k d - p)."""
    options = list(zip(spatial, kernel, stride, padding, dilation, strict=True))
    out = tuple(conv_length(*option) for option in options)
    axes = []
    for (n, k, s, p, d), count in zip(options, out, strict=True):
        reach = ((t * d - p, t) for t in range(k))
        axes.append([Phase(0, count, _that_hit(reach, count, s, n))])
    return _geometry(spatial, kernel, out, stride, (1,) * len(stride), axes)


@lru_cache(maxsize=1024)
def conv_transpose_geometry(
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    output_padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Geometry:
    """Output o = r + i s reads the inputs i + (r + p - k d) / s, for the k where this is whole."""
    options = list(zip(spatial, kernel, stride, padding, output_padding, dilation, strict=True))
    out = tuple(conv_transpose_length(*option) for option in options)
    axes = []
    for (n, k, s, p, _, d), length in zip(options, out, strict=True):
        phases = []
        for r in range(s):
            count = len(range(r, length, s))
            reach = (((r + p - t * d) // s, t) for t in range(k) if (r + p - t * d) % s == 0)
            phases.append(Phase(r, count, _that_hit(reach, count, 1, n)))
        axes.append(phases)
    return _geometry(spatial, kernel, out, (1,) * len(stride), stride, axes)


def _that_hit(reach: Any, count: int, step: int, length: int) -> tuple[tuple[int, int], ...]:
    """The taps that meet an input at some position: not those in the padding always."""
    return tuple(
        (offset, t)
        for offset, t in reach
        # the first position that does not lie before the input lies in it
        if (i := max(0, -(offset // step))) < count and offset + i * step < length
    )


def _geometry(
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    out: tuple[int, ...],
    in_step: tuple[int, ...],
    out_step: tuple[int, ...],
    axes: Sequence[Sequence[Phase]],
) -> Geometry:
    """All combinations of the axes' phases, and of their taps."""
    missing = 3 - len(spatial)
    ones = (1,) * missing
    kernel = ones + kernel
    phases: list[tuple[int, ...]] = []
    taps: list[tuple[int, ...]] = []
    for z, y, x in itertools.product(*[[Phase(0, 1, ((0, 0),))]] * missing, *axes):
        first = len(taps)
        for (dz, a), (dy, b), (dx, c) in itertools.product(z.taps, y.taps, x.taps):
            taps.append((dz, dy, dx, (a * kernel[1] + b) * kernel[2] + c))
        counts = z.count, y.count, x.count
        phases.append((first, len(taps) - first, z.first, y.first, x.first, *counts))
    return Geometry(
        ones + spatial,
        ones + out,
        ones + in_step,
        ones + out_step,
        math.prod(kernel),
        np.array(phases, np.int32).reshape(-1, 8),
        np.array(taps, np.int32).reshape(-1, 4),
    )
