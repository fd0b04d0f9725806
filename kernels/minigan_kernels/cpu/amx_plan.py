"""What a convolution reads and writes, along each axis and for both: tables for the AMX kernels.

Convolution and its transpose become one computation. With stride s, output i of a convolution and
tap k = a + s j read input i s + k - p = (i + j) s + (a - p). So the input is dealt into s planes

    plane_a[i] = x[i s + a - p]           zero outside of x
    y[i] = sum over a, j of plane_a[i + j] w[a + s j]

and each plane meets its taps with stride one: neighbours i read neighbours in memory. The transpose
deals out its results instead: x[i s + a] meets the taps k with (a + p - k) divisible by s, and

    x[i s + a] = sum over j of plane[i + shift_a + j] w[first_a - s j]

with a single plane, g itself with zeros around it. A `Line` is one plane (or one phase a of the
results) and its taps, along one axis; the pairs of lines of the two axes are the kernels' table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Line(NamedTuple):
    """Result i of `phase` reads places i + shift + j of `plane`, for j < taps."""

    plane: int
    phase: int
    taps: int
    first: int  # the tap of j = 0; the next ones are Axis.tap_step apart
    shift: int
    begin: int  # places of the plane that hold numbers: begin .. end - 1; the others are zero
    end: int


class Axis(NamedTuple):
    lines: list[Line]
    planes: int
    source_step: int  # place i of plane a is element i source_step + a - before of the source
    before: int
    results: int  # of one phase
    result_step: int  # result i of phase a is element i result_step + a
    tap_step: int
    reach: int  # a plane has so many places more than there are results


def forward_axis(n: int, k: int, s: int, p: int, results: int) -> Axis:
    """conv, from length n to length `results`."""
    lines = [
        Line(a, 0, len(range(a, k, s)), a, 0, -((a - p) // s), -((a - p - n) // s))
        for a in range(min(s, k))
    ]
    return Axis(lines, len(lines), s, p, results, 1, s, -(-k // s) - 1)


def transpose_axis(m: int, k: int, s: int, p: int, results: int) -> Axis:
    """conv_transpose, from length m to length `results`."""
    phases = [[t for t in reversed(range(k)) if (a + p - t) % s == 0] for a in range(s)]
    shifts = [(a + p - taps[0]) // s if taps else 0 for a, taps in enumerate(phases)]
    before = -min(shift for shift, taps in zip(shifts, phases, strict=True) if taps)
    lines = [
        Line(0, a, len(taps), taps[0] if taps else 0, shift + before, before, before + m)
        for a, (taps, shift) in enumerate(zip(phases, shifts, strict=True))
    ]
    reach = max(line.shift + line.taps for line in lines if line.taps) - 1
    return Axis(lines, 1, 1, before, -(-results // s), s, -s, reach)


class Plan(NamedTuple):
    y: Axis
    x: Axis
    planes: int
    taps: int
    phases: int  # of the results
    entries: int  # of the table for each phase
    table: npt.NDArray[np.int64]


# Columns of the table.
PLANE, ROWS, COLUMNS, FIRST_Y, FIRST_X, SHIFT_Y, SHIFT_X = range(7)
BEGIN_Y, END_Y, BEGIN_X, END_X, PHASE_Y, PHASE_X = range(7, 13)
TAPS_BEFORE, PHASE_TAPS, PHASE_TAPS_BEFORE = range(13, 16)
WIDTH = 16


def plan(y: Axis, x: Axis) -> Plan:
    """Join two axes; ROWS x COLUMNS are the taps of an entry."""
    pairs = [(a, b) for a in y.lines for b in x.lines]
    taps = [a.taps * b.taps for a, b in pairs]
    phases = y.result_step * x.result_step
    entries = len(pairs) // phases
    table = np.zeros((len(pairs), WIDTH), np.int64)
    for row, (a, b) in enumerate(pairs):
        first = row // entries * entries  # of this phase
        table[row] = (
            *(a.plane * x.planes + b.plane, a.taps, b.taps, a.first, b.first, a.shift, b.shift),
            *(a.begin, a.end, b.begin, b.end, a.phase, b.phase),
            *(sum(taps[first:row]), sum(taps[first : first + entries]), sum(taps[:first])),
        )
    return Plan(y, x, y.planes * x.planes, sum(taps), phases, entries, table)


def smaller_and_smaller(images: int, rows: int) -> Iterator[tuple[int, int]]:
    """Ways to take a batch in blocks of so many images and rows: all at once, half of it, ..."""
    while True:
        yield images, rows
        if images > 1:
            images = -(-images // 2)
        elif rows > 1:
            rows = -(-rows // 2)
        else:
            return
