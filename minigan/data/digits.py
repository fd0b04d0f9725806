"""A procedural set of handwritten digits: endless, free, and with known attributes.

Each digit is one of a few ways to write it (`glyphs`), bent smoothly, slanted, turned and scaled,
then drawn with a pen of some thickness (`pen`): 28 x 28 pixels, the digit in a box of 20 x 20
pixels, its mass in the middle, as in MNIST. The set needs no file and no network, and since the
attributes of every picture are known it can serve as an exact oracle: what slant, what thickness
does a generator make?

Sample i of seed s depends on (s, i) alone, not on how many samples are made or in which portions.
(Between processors whose sine or square root differ in the last bit, a pixel may differ by one.)
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import ShapeError, UsageError
from minigan.random import generator

from . import pen
from .glyphs import GLYPHS

CLASSES = tuple("0123456789")
BOX = 20.0  # pixels; the longer side of a digit at scale 1
BLOCK = 200  # samples that share one random generator; also the portion in which is drawn
_BENDS = 7  # coefficients of the smooth deformation per direction

Array = npt.NDArray[Any]

# How the ten digits differ in habit; chosen so that the statistics resemble those of MNIST.
_ASPECT = np.array([1.02, 0.9, 1.1, 1.12, 1.12, 1.12, 1.02, 1.05, 1.12, 1.1], np.float32)
_SLANT = np.array([0.24, 0.26, 0.12, 0.12, 0.2, 0.12, 0.12, 0.12, 0.12, 0.12], np.float32)
_THICKNESS = np.array([2.8, 2.9, 2.6, 2.55, 2.6, 2.55, 2.6, 2.75, 2.45, 2.45], np.float32)
_LIVELY = np.array([0.6, 0.5, 1.2, 1.1, 1, 1.2, 1.1, 1, 1.1, 1], np.float32)


@dataclass(frozen=True)
class Attributes:
    """What a digit looks like; every field is an array over the samples.

    glyph : (N,) int64, which way of writing; taken modulo the ways that the digit has.
    slant : (N,) tangent of the angle; positive leans to the right.
    rotation : (N,) degrees, positive turns clockwise.
    aspect : (N,) width over the usual width.
    scale : (N,) size; at 1 the longer side of the ink is 20 pixels.
    thickness : (N,) width of the line in pixels.
    ink : (N,) darkness of the line, 0 to 1.
    shift : (N, 2) pixels, x and y, by which the centre of mass is off the centre (to about half
        a pixel: where strokes cross, ink counts twice).
    pressure : (N, 3) how the width varies along the line: two slow waves, and pointed ends.
    bend : (N, 2, 7) coefficients of a smooth deformation of the plane.
    wobble : (N, M, 2) displacement of the single points of the strokes, in digit heights.
    """

    glyph: Array
    slant: Array
    rotation: Array
    aspect: Array
    scale: Array
    thickness: Array
    ink: Array
    shift: Array
    pressure: Array
    bend: Array
    wobble: Array

    def __len__(self) -> int:
        return len(self.glyph)

    def __getitem__(self, index: Any) -> Attributes:
        """Return the attributes of some samples: a slice or an array of indices."""
        return Attributes(*(getattr(self, f.name)[index] for f in fields(self)))


def neutral(count: int, **changes: Any) -> Attributes:
    """Return the attributes of `count` plain digits, upright and without any variation.

    Keyword arguments replace single fields: numbers or arrays that broadcast to the field, e.g.
    ``neutral(9, slant=np.linspace(-0.5, 0.5, 9))``.
    """
    points = pen.paths()[0].control.shape[1]
    one, zero = np.ones(count, np.float32), np.zeros(count, np.float32)
    plain = Attributes(
        glyph=np.zeros(count, np.int64),
        slant=zero,
        rotation=zero,
        aspect=one,
        scale=one,
        thickness=one * np.float32(2.4),
        ink=one,
        shift=np.zeros((count, 2), np.float32),
        pressure=np.zeros((count, 3), np.float32),
        bend=np.zeros((count, 2, _BENDS), np.float32),
        wobble=np.zeros((count, points, 2), np.float32),
    )
    unknown = set(changes) - {f.name for f in fields(Attributes)}
    if unknown:
        raise UsageError(f"digits have no attribute {sorted(unknown)[0]!r}")
    for name, value in changes.items():
        like = getattr(plain, name)
        plain = replace(plain, **{name: np.broadcast_to(np.asarray(value, like.dtype), like.shape)})
    return plain


def make(count: int, seed: int = 0, start: int = 0) -> tuple[Array, Array, Attributes]:
    """Make the samples `start` to `start + count` of the endless set of a seed.

    Returns
    -------
    images : uint8 (count, 1, 28, 28), 0 is paper and 255 is ink.
    labels : int64 (count,); every block of 200 samples has each digit 20 times.
    attributes : Attributes.
    """
    if count < 0 or start < 0:
        raise UsageError(f"cannot make {count} digits from number {start} on")
    if count == 0:
        return np.zeros((0, 1, pen.SIDE, pen.SIDE), np.uint8), np.zeros(0, np.int64), neutral(0)
    first, last = start // BLOCK, (start + count - 1) // BLOCK
    blocks = [_sample(seed, block) for block in range(first, last + 1)]
    wanted = slice(start - first * BLOCK, start - first * BLOCK + count)
    labels = np.concatenate([labels for labels, _ in blocks])[wanted]
    attributes = Attributes(
        *(np.concatenate([getattr(a, f.name) for _, a in blocks]) for f in fields(Attributes))
    )[wanted]
    return render(labels, attributes), labels, attributes


def render(labels: Array, attributes: Attributes) -> Array:
    """Draw digits with given attributes.

    Parameters
    ----------
    labels : int (N,), 0 to 9.
    attributes : Attributes of N samples.

    Returns
    -------
    uint8 (N, 1, 28, 28)
    """
    labels = np.asarray(labels)
    if labels.shape != (len(attributes),):
        raise ShapeError(
            f"digits.render: {labels.shape} labels, attributes of {len(attributes)} samples"
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() <= 9):
        raise UsageError("digits.render: labels must be 0 to 9")
    images = np.empty((len(labels), 1, pen.SIDE, pen.SIDE), np.uint8)

    def fill(start: int) -> None:
        part = slice(start, start + BLOCK)
        images[part, 0] = _render_block(labels[part], attributes[part])

    # NumPy lets other threads run while it computes; blocks do not depend on one another.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, range(0, len(labels), BLOCK)))
    return images


def _sample(seed: int, block: int) -> tuple[Array, Attributes]:
    """Draw labels and attributes of one block of samples: how people vary."""
    rng = generator(seed, "digits", block)
    points = pen.paths()[0].control.shape[1]
    labels = rng.permutation(BLOCK) % 10
    pick = rng.random(BLOCK)
    off_centre = rng.random((BLOCK, 2), dtype=np.float32) - np.float32(0.5)
    normal = rng.standard_normal((BLOCK, 11), dtype=np.float32).T
    bend = rng.standard_normal((BLOCK, 2, _BENDS), dtype=np.float32)
    wobble = rng.standard_normal((BLOCK, points, 2), dtype=np.float32)

    lively = _LIVELY[labels][:, None, None]
    return labels, Attributes(
        glyph=_pick_glyphs(labels, pick),
        slant=_SLANT[labels] + np.float32(0.22) * normal[0],
        rotation=np.float32(4) * normal[1],
        aspect=np.exp(np.float32(0.13) * normal[2]),
        scale=np.exp(np.float32(-0.03) * np.abs(normal[3])),
        thickness=np.clip(_THICKNESS[labels] * np.exp(np.float32(0.28) * normal[4]), 1.2, 5.2),
        ink=np.exp(np.float32(-0.01) * np.abs(normal[5])),
        shift=off_centre + np.float32(0.2) * normal[6:8].T,
        pressure=(np.array([[0.12], [0.12], [0.15]], np.float32) * normal[8:11]).T
        + np.array([0, 0, 0.15], np.float32),
        bend=np.float32(0.03) * lively * bend,
        wobble=np.float32(0.024) * lively * _smooth(wobble),
    )


def _pick_glyphs(labels: Array, pick: Array) -> Array:
    """Return for each label a way to write it; `pick` in [0, 1) chooses by the shares."""
    glyph = np.zeros(len(labels), np.int64)
    for digit, ways in enumerate(GLYPHS):
        shares = np.cumsum([way.share for way in ways])
        here = labels == digit
        glyph[here] = np.searchsorted(shares / shares[-1], pick[here], side="right")
    return glyph


def _smooth(wobble: Array) -> Array:
    """Average each point's displacement with its neighbours' along the stroke."""
    around = np.pad(wobble, ((0, 0), (1, 1), (0, 0)), mode="edge")
    mean: Array = around[:, :-2] + 2 * around[:, 1:-1] + around[:, 2:]
    return mean * np.float32(1 / 6**0.5)


def _render_block(labels: Array, a: Attributes) -> Array:
    """Draw at most `BLOCK` digits: uint8 (N, 28, 28)."""
    stacked, ways = pen.paths()
    which = np.array([ways[d][g % len(ways[d])] for d, g in zip(labels, a.glyph, strict=True)])
    sample = np.arange(len(labels))[:, None]
    points = stacked.control[which] + a.wobble[sample, stacked.twin[which]]  # N,M,2
    index, weight = stacked.index[which], stacked.weight[which]  # N,P,4
    curve = sum(weight[..., k, None] * points[sample, index[..., k]] for k in range(4))
    x, y = _transform(curve[..., 0], curve[..., 1], labels, a)

    half = a.thickness[:, None] * 0.5 * _width_profile(stacked, which, a)
    room = (BOX * a.scale - a.thickness - pen.SOFTNESS / 2)[:, None]
    longer = np.maximum(np.ptp(x, axis=1), np.ptp(y, axis=1))[:, None]
    x, y = x * (room / longer), y * (room / longer)
    centre = (pen.SIDE - 1) / 2 + a.shift
    places = np.stack([x, y], axis=2)
    mass = (places * half[..., None]).sum(axis=1) / half.sum(axis=1)[:, None]
    places += (centre - mass)[:, None]
    return pen.draw(places.astype(np.float32), half.astype(np.float32), a.ink)


def _transform(x: Array, y: Array, labels: Array, a: Attributes) -> tuple[Array, Array]:
    """Bend, widen, slant and turn the curves; x, y: (N, P) in digit heights."""
    x = x - 0.35
    y = y - 0.5
    px, py = np.float32(np.pi) * x, np.float32(np.pi) * y
    waves = [np.sin(px), np.cos(px), np.sin(py), np.cos(py)]
    waves += [np.sin(2 * py) / 2, np.cos(2 * py) / 2, px * py]
    dx = sum(c[:, None] * wave for c, wave in zip(a.bend[:, 0].T, waves, strict=True))
    dy = sum(c[:, None] * wave for c, wave in zip(a.bend[:, 1].T, waves, strict=True))
    x, y = x + dx, y + dy
    x = x * (a.aspect * _ASPECT[labels])[:, None] - y * a.slant[:, None]
    angle = np.deg2rad(a.rotation)[:, None]
    return x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)


def _width_profile(stacked: pen.Path, which: Array, a: Attributes) -> Array:
    """Return the relative width of the line at each place: (N, P)."""
    turn = np.float32(2 * np.pi) * stacked.progress[which]
    wave1, wave2, taper = a.pressure[:, :, None].transpose(1, 0, 2)
    tip = np.exp(stacked.to_tip[which] * np.float32(-12))
    width: Array = np.clip(1 + wave1 * np.sin(turn) + wave2 * np.cos(turn) - taper * tip, 0.45, 1.6)
    return width
