"""A pen: from strokes to smooth curves, from curves to pixels.

Between the points p1 and p2 of a stroke the pen follows the Catmull-Rom spline

    c(u) = 1/2 (p0, p1, p2, p3) . (-u + 2u^2 - u^3,  2 - 5u^2 + 3u^3,  u + 4u^2 - 3u^3,  u^3 - u^2)

of the neighbours p0 and p3, which passes through p1 and p2 and is smooth where segments meet.
It is linear in the points: a place on the curve is four (index, weight) pairs. These are worked
out once per glyph (`Path`); a thousand deformed copies of the glyph are then four
multiply-additions. A pixel's ink depends on its distance to the nearest place of the curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .glyphs import GLYPHS, Glyph, Point

SIDE = 28  # pixels
PLACES = 88  # places on the whole curve of a digit, about half a pixel apart
SOFTNESS = 1.05  # width in pixels of the soft edge of a line
_FINE = 24  # places per segment when lengths are measured

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Path:
    """The curve of a glyph, or of all glyphs stacked along a leading axis V.

    control : (M, 2) the points of all strokes one after the other, padded with zeros.
    twin : (M,) for each point the first point at the same place: both move together.
    index, weight : (P, 4) which points make a place of the curve, and how much of each.
    progress : (P,) 0 at the first place of the digit, 1 at the last.
    to_tip : (P,) distance along the curve to the nearer end of the stroke, in digit heights.
    """

    control: Array
    twin: Array
    index: Array
    weight: Array
    progress: Array
    to_tip: Array


@cache
def paths() -> tuple[Path, tuple[Array, ...]]:
    """Return the stacked paths of all glyphs and, per digit, the numbers of its glyphs."""
    glyphs = [glyph for digit in GLYPHS for glyph in digit]
    most = max(sum(map(len, glyph.strokes)) for glyph in glyphs)
    single = [trace(glyph, most) for glyph in glyphs]
    stacked = Path(*(np.stack([getattr(path, f) for path in single]) for f in Path.__annotations__))
    ends = np.cumsum([len(digit) for digit in GLYPHS])
    return stacked, tuple(np.split(np.arange(ends[-1]), ends[:-1]))


def trace(glyph: Glyph, size: int) -> Path:
    """Work out the path of one glyph, its points padded to `size`."""
    control = np.zeros((size, 2), np.float32)
    twin = np.arange(size)
    points = [point for stroke in glyph.strokes for point in stroke]
    control[: len(points)] = points
    twin[: len(points)] = [points.index(point) for point in points]

    strokes = [_Stroke(stroke) for stroke in glyph.strokes]
    lengths = np.array([stroke.length for stroke in strokes])
    counts = np.maximum(4, np.rint(PLACES * lengths / lengths.sum())).astype(int)
    counts[np.argmax(counts)] += PLACES - counts.sum()

    index, weight, travelled, to_tip = [], [], [], []
    start, before = 0, 0.0
    for stroke, count in zip(strokes, counts, strict=True):
        along = np.linspace(0, stroke.length, count)
        taps, values = stroke.taps(np.interp(along, stroke.fine_length, stroke.fine_position))
        index.append(taps + start)
        weight.append(values)
        travelled.append(before + along)
        to_tip.append(np.minimum(along, stroke.length - along))
        start, before = start + len(stroke.points), before + stroke.length
    return Path(
        control,
        twin,
        np.concatenate(index),
        np.concatenate(weight).astype(np.float32),
        (np.concatenate(travelled) / before).astype(np.float32),
        np.concatenate(to_tip).astype(np.float32),
    )


class _Stroke:
    """One stroke: its length, and where on the curve a given length lies."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = np.array(points)
        self.closed = len(points) > 2 and points[0] == points[-1]
        self.fine_position = np.linspace(0, len(points) - 1, (len(points) - 1) * _FINE + 1)
        taps, weight = self.taps(self.fine_position)
        curve = (self.points[taps] * weight[..., None]).sum(axis=1)
        steps = np.hypot(*np.diff(curve, axis=0).T)
        self.fine_length = np.concatenate([[0.0], np.cumsum(steps)])
        self.length = float(self.fine_length[-1])

    def taps(self, position: Array) -> tuple[Array, Array]:
        """Return index and weight, both (P, 4), of the places at `position` in [0, points-1]."""
        last = len(self.points) - 1
        segment = np.minimum(position.astype(int), last - 1)
        u = position - segment
        weight = 0.5 * np.stack(
            [
                -u + 2 * u**2 - u**3,
                2 - 5 * u**2 + 3 * u**3,
                u + 4 * u**2 - 3 * u**3,
                u**3 - u**2,
            ],
            axis=1,
        )
        index = segment[:, None] + np.arange(-1, 3)
        if self.closed:  # the neighbour across the seam; the last point is the first again
            return index % last, weight
        for edge, column, inner in ((index < 0, 0, 1), (index > last, 3, 2)):
            # Beyond an end the curve goes straight on: p(-1) = 2 p0 - p1.
            outside = edge[:, column]
            amount = np.where(outside, weight[:, column], 0)
            weight[:, inner] += 2 * amount
            weight[:, 3 - inner] -= amount
            weight[:, column] -= amount
        return np.clip(index, 0, last), weight


def draw(places: Array, half_width: Array, ink: Array) -> Array:
    """Draw curves as pixels.

    Parameters
    ----------
    places : (N, P, 2) x and y in pixels; (0, 0) is the centre of the upper left pixel.
    half_width : (N, P) half the width of the line there, in pixels.
    ink : (N,) darkness of the line, 0 to 1.

    Returns
    -------
    uint8 (N, 28, 28), 0 is paper.

    Notes
    -----
    With d the distance to a place and w the half width there, the nearest place minimises
    (d / w)^2. Ink fades over `SOFTNESS` pixels around d = w, which is what remains of a sharp black
    line when a scan is scaled down to 28 x 28.
    """
    count = len(places)
    mean_width = half_width.mean(axis=1)
    sharpness = (1 / half_width).T[:, None]  # P,1,N: samples last, so that inner loops are long
    grid = np.arange(SIDE, dtype=np.float32)[:, None]
    dx = np.square((grid - places[:, :, 0].T[:, None]) * sharpness)  # P,28,N
    dy = np.square((grid - places[:, :, 1].T[:, None]) * sharpness)
    nearest = np.full((SIDE, SIDE, count), np.float32(np.inf))
    here = np.empty_like(nearest)
    for p in range(places.shape[1]):
        np.add(dy[p][:, None], dx[p][None], out=here)
        np.minimum(nearest, here, out=nearest)
    np.sqrt(nearest, out=nearest)
    cover = np.clip((1 - nearest) * (mean_width / np.float32(SOFTNESS)) + np.float32(0.5), 0, 1)
    pixels: Array = np.rint(cover * (ink * np.float32(255))).astype(np.uint8)
    return pixels.transpose(2, 0, 1)
